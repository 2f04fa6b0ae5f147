"""Who may wait: a tenant within its own bound, all within one, and places for newcomers."""

import asyncio

import pytest
from support.core_runner import collect, fails, story
from support.world import World, passes, text_of, turn_of

from samovard.core.pool.queue import TENANT_QUEUE, PoolLimits, TenantLimits
from samovard.core.turn.follower import Follower

SOME = {"small": 1, "large": 20}  # how many turns of a tenant may wait


async def crowd(w: World, count: int, tenant: str = "crowd") -> list[Follower]:
    """Begin so many turns of a tenant, each in a session of its own, and let them wait or run."""
    streams = []
    for number in range(count):
        streams.append(await w.send(session=f"s{number}", tenant=tenant))
        await passes(1.0)  # a start takes half of it
    return streams


def refusals(streams: list[Follower]) -> list[str]:
    """Return the reasons of what was refused."""
    return [error.reason for stream in streams if (error := turn_of(stream).error)]


async def leave(*streams: Follower) -> None:
    """End streams that nobody will read."""
    for stream in streams:
        async with stream:
            pass


@story(slots=1, queue=64)
async def test_a_tenants_own_bound_is_queue_full(w: World) -> None:
    """Of a tenant that runs one turn sixteen wait; the next is refused and may be repeated."""
    streams = await crowd(w, 1 + TENANT_QUEUE)
    assert refusals(streams) == []
    error = await fails(await w.send(session="more", tenant="crowd"))
    assert (error.reason, error.retry_after) == ("QUEUE_FULL", 1.0)
    assert error.message == "as many turns of the tenant wait as may: 16"
    other = await w.send(tenant="other")
    await passes(0.1)
    assert not turn_of(other).error
    await leave(*streams, other)


@story(slots=1, queue=64, max_tenants=1)
async def test_a_tenant_beyond_the_most_is_refused(w: World) -> None:
    """For as long as the service runs; the tenant that came first is served as ever."""
    first = await w.send(session="a", tenant="first")
    (await w.running()).answer()
    await collect(first)
    error = await fails(await w.send(tenant="other"))
    assert (error.reason, error.cause) == ("NO_PROCESS", "other-tenant")
    again = await w.send(session="b", tenant="first")
    (await w.running(actors=2)).answer()
    assert await collect(again)


@story(slots=1, queue=64, max_tenants=1, tenants=frozenset({"stored"}))
async def test_a_tenant_with_stored_sessions_counts(w: World) -> None:
    """From the start, before any turn of it."""
    error = await fails(await w.send(tenant="other"))
    assert error.cause == "other-tenant"


@story(slots=1, queue=1, max_tenants=2)
async def test_a_refused_tenant_does_not_count(w: World) -> None:
    """Another one may come in its place."""
    running = await crowd(w, 2)
    refused = await w.send(tenant="refused")
    assert (await fails(refused)).cause == "saturated"
    await leave(*running)
    await passes(60.0)
    assert await w.send(tenant="other")
    await passes(0.1)
    error = await fails(await w.send(tenant="refused"))
    assert error.cause == "other-tenant"


@story(slots=40, queue=64)
async def test_a_turn_that_a_slot_is_free_for_is_not_refused(w: World) -> None:
    """However many sessions of its tenant begin at once: they wait for their own starts only."""
    streams = [await w.send(session=f"s{number}", tenant="burst") for number in range(60)]
    await passes(0.1)
    assert refusals(streams) == ["QUEUE_FULL"] * 20
    await leave(*streams)


@story(slots=1, queue=64, tenant=lambda name: TenantLimits(SOME[name]))
async def test_each_tenant_has_its_own_bound(w: World) -> None:
    """What one tenant may have waiting is not what another one may."""
    small, large = await crowd(w, 3, "small"), await crowd(w, 22, "large")
    assert refusals(small) == ["QUEUE_FULL"]
    assert refusals(large) == ["QUEUE_FULL"] * 2
    await leave(*small, *large)


@story(slots=2, queue=8)
async def test_a_crowd_in_a_retry_loop_does_not_shut_others_out(w: World) -> None:
    """While forty sessions of one tenant come again at once, another tenant's turns are served."""
    w.stage.quick = "done"
    over = asyncio.Event()

    async def retry(number: int) -> None:
        while not over.is_set():
            async with await w.send(session=f"s{number}", tenant="crowd") as stream:
                try:
                    async for _ in stream:
                        await passes(0.05)
                except Exception as error:
                    assert getattr(error, "cause", "") == "saturated"
            await passes(0.05)

    async with asyncio.TaskGroup() as tasks:
        for number in range(40):
            tasks.create_task(retry(number))
        await passes(1.0)
        for _ in range(10):
            await collect(await w.send(tenant="quiet"))
        over.set()


@story(slots=2, queue=4)
async def test_a_place_is_kept_for_tenants_that_neither_run_nor_wait(w: World) -> None:
    """Tenants that run or wait leave it; a newcomer takes it, once, and then it is gone."""
    streams = await crowd(w, 2, "runs") + await crowd(w, 3, "waits")
    assert refusals(streams) == []
    for tenant in ("runs", "waits", "new", "new", "late"):
        streams.append(await w.send(session=f"x{len(streams)}", tenant=tenant))
    await passes(0.1)
    refused = [turn_of(s).key.tenant for s in streams if turn_of(s).error]
    assert refused == ["runs", "waits", "new", "late"]
    await leave(*streams)


@story(slots=3, queue=1)
async def test_a_turn_whose_process_idles_is_not_refused(w: World) -> None:
    """It does not wait, however many others do."""
    await w.turn()
    starting = await w.send(tenant="other")
    await passes(0.1)
    assert w.pool.waiting == 1
    await w.turn("again")
    await leave(starting)


@pytest.mark.parametrize(
    ("places", "kept"), [(1, 0), (2, 1), (7, 1), (8, 1), (15, 1), (16, 2), (184, 23)]
)
def test_one_place_in_eight_is_kept(places: int, kept: int) -> None:
    """At least one, but never the only one."""
    assert PoolLimits(slots=1, queue=places).reserve == kept


@story(slots=3, queue=64, tenant=lambda name: TenantLimits(processes=1 if name == "one" else None))
async def test_a_tenant_has_no_more_processes_than_it_may(w: World) -> None:
    """Its idle process makes room for its next session, and a running one does not."""
    await w.turn(tenant="one", session="a")
    await w.turn(tenant="one", session="b")
    running = await w.send(tenant="one", session="c")
    await w.running(actors=3)
    waiting = await w.send(tenant="one", session="d")
    await w.turn(tenant="other")
    assert [p.key.tenant for p in w.pool].count("one") == 1
    error = await fails(waiting)
    assert (error.reason, error.cause) == ("QUOTA_EXCEEDED", "processes")
    assert error.retry_after
    await leave(running)


@story(slots=20, queue=64, tenant=lambda name: TenantLimits(queue=2, processes=1))
async def test_a_tenant_at_its_bound_waits_in_its_own_queue(w: World) -> None:
    """Slots that it may not take are no reason to let more of its turns wait."""
    streams = await crowd(w, 5)
    assert refusals(streams) == ["QUEUE_FULL"] * 2
    await leave(*streams)


@story(slots=8, queue=64, max_starting=8)
async def test_a_slot_is_kept_for_a_tenant_that_runs_nothing(w: World) -> None:
    """However many sessions another one has running; a single tenant may have every slot."""
    streams = await crowd(w, 8, "alone")
    assert all(process.lease for process in w.pool)
    for actor, stream in zip(w.stage.created, streams, strict=True):
        actor.answer()
        await collect(stream)
    await w.turn(tenant="other")
    streams = await crowd(w, 9, "crowd")
    busy = [p for p in w.pool if p.lease is not None]
    assert (len(busy), w.pool.waiting) == (7, 2)
    assert text_of(await w.turn("x", tenant="new")) == "x"
    await leave(*streams)


async def lasting(w: World, seconds: float, count: int) -> None:
    """Run turns of so many seconds, one after another."""
    for number in range(count):
        stream = await w.send(session="past", turn_id=f"past-{number}", tenant="past")
        await passes(seconds)
        (await w.running(prompts=number + 1)).answer()
        await collect(stream)


@story(slots=1, queue=64)
async def test_a_turn_whose_process_would_come_too_late_is_refused_at_once(w: World) -> None:
    """By its deadline or by the longest wait; it is told when to come again."""
    await lasting(w, 22.0, 3)
    streams = [await w.send(session="running")]
    await passes(1.0)
    streams += [await w.send(session=f"s{number}") for number in range(2)]
    at = w.pool.clock()
    error = await fails(await w.send(session="hurry", patience=30.0))
    assert (error.reason, error.cause) == ("NO_PROCESS", "saturated")
    assert error.retry_after == pytest.approx(44.0, abs=2.0)
    streams.append(await w.send(session="patient", patience=50.0))
    error = await fails(await w.send(session="last"))
    assert error.retry_after == pytest.approx(66.0, abs=3.0)
    assert w.pool.clock() - at < 1.0
    assert refusals(streams) == []
    await leave(*streams)


@story(slots=2, queue=64)
async def test_a_turn_that_a_slot_is_free_for_is_served_however_long_turns_take(w: World) -> None:
    """What is expected of others says nothing of it."""
    await lasting(w, 50.0, 2)
    stream = await w.send(session="a", patience=10.0)
    await passes(1.0)
    other = await w.send(session="b", patience=10.0)
    await passes(1.0)
    assert refusals([stream, other]) == []
    await leave(stream, other)


@story(slots=1, queue=64, tenant=lambda name: TenantLimits(queue=2))
async def test_a_full_queue_says_when_its_turn_would_come(w: World) -> None:
    """As soon as it is known how long turns take."""
    await lasting(w, 20.0, 3)
    streams = [await w.send(session=f"t{number}") for number in range(3)]
    await passes(0.1)
    error = await fails(await w.send(session="x"))
    assert error.reason == "QUEUE_FULL"
    assert error.retry_after == pytest.approx(40.0, abs=8.0)
    await leave(*streams)
