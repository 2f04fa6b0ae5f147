"""Who may wait: a tenant within its own bound, all within one, and places for newcomers."""

import asyncio

import pytest
from support.core_runner import collect, fails, story
from support.world import World, passes, turn_of

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
