"""After a refusal the sessions in memory are those that were there before it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from core.sessions.test_rate_limits import limited
from support.await_points import Fate
from support.core_runner import collect, story
from support.send_scenarios import CALL
from support.world import World, passes, run, until, world

from samovard.core.errors import NoProcess, SamovarError
from samovard.core.records import SessionKey, Spec

KEY = SessionKey("acme", "s")


async def store_only(w: World, name: str = "s") -> None:
    """Leave a session that is in the store and not in memory."""
    await w.turn(session=name, turn_id=f"old-{name}")
    w.stage.last.die()
    await passes(600)
    assert len(w.sessions) == 0


async def upstream_limit(w: World) -> None:
    """The model's API is known to refuse."""
    await limited(w, delay=10_000.0)


async def upstream_limit_of_old(w: World) -> None:
    """The same, for a session that is in the store."""
    await limited(w, delay=10_000.0)
    (record,) = w.shelf.sessions.values()
    w.shelf.sessions[KEY] = replace(record, key=KEY, home="s")


async def blocked(w: World) -> None:
    """The session is blocked."""
    await store_only(w)
    w.shelf.sessions[KEY] = replace(w.shelf.sessions[KEY], blocked=True)


async def profile_removed(w: World) -> None:
    """Its profile is no longer configured."""
    await store_only(w)
    record = w.shelf.sessions[KEY]
    w.shelf.sessions[KEY] = replace(record, spec=replace(record.spec, profile="removed"))


async def other_spec(w: World) -> None:
    """The session was made with another prompt."""
    await store_only(w)


async def known_turn(w: World) -> None:
    """The turn was run by an earlier server."""
    await store_only(w)
    w.shelf.turns[KEY, "t"] = w.shelf.turns[KEY, "old-s"]


async def draining(w: World) -> None:
    """The service goes away."""
    w.sessions.refuse_new()


async def draining_of_old(w: World) -> None:
    """The same, for a session that is in the store."""
    await store_only(w)
    w.sessions.refuse_new()


async def store_down(w: World) -> None:
    """The store does not answer."""
    w.shelf.down = True


async def nothing_starts(w: World) -> None:
    """No agent can be started."""
    w.pool.hold(NoProcess("no agent can be started", cause="start-failed", retry_after=5.0))


async def start_fails(w: World) -> None:
    """Its agent does not start."""
    w.stage.start_errors = [NoProcess("no", cause="start-failed", retry_after=1.0)] * 2


async def queue_full(w: World) -> None:
    """As many turns wait as may."""
    for number in range(3):
        await w.send(session=f"other-{number}")
        await passes(0.01)


async def fails_at_record(w: World) -> None:
    """The store fails once the process is there."""
    asyncio.get_running_loop().call_later(0.3, setattr, w.shelf, "down", True)


Refusal = Callable[[World], Awaitable[None]]
REFUSALS: list[tuple[Refusal, str]] = [
    (upstream_limit, "QUOTA_EXCEEDED"),
    (upstream_limit_of_old, "QUOTA_EXCEEDED"),
    (blocked, "MISCONFIGURED"),
    (profile_removed, "MISCONFIGURED"),
    (other_spec, "ID_TAKEN"),
    (known_turn, "ID_TAKEN"),
    (draining, "DRAINING"),
    (draining_of_old, "DRAINING"),
    (store_down, "NO_PROCESS"),
    (nothing_starts, "NO_PROCESS"),
    (start_fails, "NO_PROCESS"),
    (queue_full, "NO_PROCESS"),
    (fails_at_record, "NO_PROCESS"),
]


@pytest.mark.parametrize(
    ("refusal", "reason"), REFUSALS, ids=[refusal.__name__ for refusal, _ in REFUSALS]
)
def test_a_refused_turn_leaves_no_session_in_memory(refusal: Refusal, reason: str) -> None:
    """Whatever it is refused for, and whether the session is new or in the store."""

    @story(slots=2, queue=1)
    async def test(w: World) -> None:
        await refusal(w)
        before = len(w.sessions)
        asked = Spec(append_system_prompt="other") if refusal is other_spec else None
        with pytest.raises(SamovarError) as refused:
            await collect(await w.send("x", session="s", turn_id="t", spec=asked))
        assert refused.value.reason == reason
        w.shelf.down = False
        await passes(1)  # a process that was started for it goes
        assert len(w.sessions) == before
        w.sessions.refuse_new()

    test()


@story()
async def test_a_refused_session_may_be_made_otherwise(w: World) -> None:
    """Nothing of what a refused turn asked for binds the next one."""
    await upstream_limit(w)
    with pytest.raises(SamovarError):
        await w.send("x", session="s", spec=Spec(append_system_prompt="one"))
    await passes(10_000)
    await w.turn("y", session="s", spec=Spec(append_system_prompt="two"))
    assert (await w.sessions.get(KEY)).record.spec.append_system_prompt == "two"


@story()
async def test_a_busy_session_stays(w: World) -> None:
    """A session in use is not forgotten for what was refused in it."""
    first, second = await w.send("one"), await w.send("two")
    with pytest.raises(SamovarError) as refused:
        await w.send("three")
    assert refused.value.reason == "SESSION_BUSY"
    assert len(w.sessions) == 1
    await first.__aexit__(None, None, None)
    await second.__aexit__(None, None, None)
    await until(lambda: not len(w.sessions))


def test_a_call_cancelled_in_its_look_leaves_no_session_in_memory() -> None:
    """A caller that leaves at any await before its turn exists has made nothing."""

    def cancelled(at: int) -> bool:
        fates: list[Fate] = []

        async def told() -> None:
            async with world() as w:
                await store_only(w)

                async def call() -> None:
                    await w.send("x", session="s")

                fate = Fate(at, (CALL,), lambda: task.cancel())
                fates.append(fate)
                fate.watch(asyncio.get_running_loop())
                fate.begun = True
                task = asyncio.create_task(call(), name=CALL)
                await asyncio.wait({task})
                if fate.struck:
                    assert len(w.sessions) == 0

        run(told())
        return bool(fates[0].struck)

    at = 0
    while cancelled(at):
        at += 1
    assert at >= 2
