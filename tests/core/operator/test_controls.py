"""What an operator does to tenants' turns and sessions, and that twice is once."""

import pytest
from support.core_runner import collect, fails, finished, story
from support.world import World, passes, text_of, turn_of

from samovard.core.errors import Misconfigured, SessionNotFound
from samovard.core.events import Outcome
from samovard.core.operator.controls import Controls
from samovard.core.process import Broken
from samovard.core.records import SessionKey

KEY = SessionKey("acme", "default")


def controls(w: World) -> Controls:
    return Controls(w.pool, w.sessions, w.directory, w.records)


@story()
async def test_an_operator_is_told_how_many_processes_are_replaced(w: World) -> None:
    """Those told to stop, and those that stop when their turn ends."""
    await w.turn()
    assert controls(w).drain("acme", "") == (1, 0)
    assert controls(w).drain("nobody", "") == (0, 0)


@story(slots=4)
async def test_turns_of_a_paused_tenant_wait(w: World) -> None:
    """With and without an idle process; running ones go on, and other tenants' begin."""
    await w.turn(session="warm")
    running = await w.send(session="running")
    (await w.running(actors=2)).say("half")
    for _ in range(2):
        controls(w).pause("acme")
    waiting = [await w.send("x", session=name) for name in ("warm", "new")]
    w.stage.last.answer("whole")
    assert finished(await collect(running)).result == "whole"
    assert text_of(await w.turn("y", tenant="other")) == "y"
    await passes(30.0)
    assert w.pool.waiting == 2
    w.stage.quick = "done"
    for _ in range(2):
        controls(w).resume("acme")
    for stream in waiting:
        assert finished(await collect(stream)).result == "done"


@story(slots=4)
async def test_every_tenant_may_be_paused_at_once(w: World) -> None:
    """And resumed at once, those too that were paused by their names."""
    controls(w).pause("")
    controls(w).pause("acme")
    streams = [await w.send(tenant=tenant) for tenant in ("acme", "other")]
    await passes(10.0)
    assert w.pool.waiting == 2
    controls(w).resume("acme")
    await passes(10.0)
    assert w.pool.waiting == 2
    w.stage.quick = "done"
    controls(w).resume("")
    for stream in streams:
        await collect(stream)


@story()
async def test_a_pause_has_an_end_for_those_that_wait(w: World) -> None:
    """After the longest wait they are refused, and told why."""
    controls(w).pause("acme")
    error = await fails(await w.send())
    assert (error.reason, error.cause) == ("NO_PROCESS", "paused")
    assert error.retry_after


@story()
async def test_a_service_that_ends_does_not_wait_for_a_paused_tenant(w: World) -> None:
    """Its waiting turns are told that the service goes away."""
    controls(w).pause("acme")
    stream = await w.send()
    await passes(1.0)
    w.sessions.refuse_new()
    assert (await fails(stream)).reason == "DRAINING"


@story()
async def test_a_running_turn_is_interrupted(w: World) -> None:
    """Once; a session without a running turn has none to interrupt."""
    stream = await w.send()
    actor = await w.running()
    turn_id = turn_of(stream).turn_id
    assert await controls(w).interrupt(KEY) == turn_id
    assert await controls(w).interrupt(KEY) == turn_id
    assert len(actor.proofs) == 1
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(stream)).outcome is Outcome.INTERRUPTED
    assert await controls(w).interrupt(KEY) == ""
    with pytest.raises(SessionNotFound):
        await controls(w).interrupt(SessionKey("other", "default"))


@story()
async def test_a_session_is_closed_once(w: World) -> None:
    """Its tenant may use its name again."""
    await w.turn()
    assert await controls(w).close(KEY)
    assert not await controls(w).close(KEY)
    assert text_of(await w.turn("x")) == "x"


async def block(w: World) -> None:
    """Run a turn whose agent speaks of another session."""
    stream = await w.send("x")
    (await w.running()).listener.on_broken(Broken.FOREIGN)
    await fails(stream)
    with pytest.raises(Misconfigured):
        await w.send("y")


@story()
async def test_a_blocked_session_is_unblocked(w: World) -> None:
    """In memory and in the store; once."""
    await block(w)
    assert await controls(w).unblock(KEY)
    assert not await controls(w).unblock(KEY)
    assert not w.shelf.sessions[KEY].blocked
    assert text_of(await w.turn("x")) == "x"
    with pytest.raises(SessionNotFound):
        await controls(w).unblock(SessionKey("other", "default"))


@story()
async def test_a_blocked_session_that_only_the_store_knows_is_unblocked(w: World) -> None:
    """As after a restart."""
    await block(w)
    await passes(400.0)  # until its last turn is held no longer
    assert w.directory.get(KEY) is None
    assert w.shelf.sessions[KEY].blocked
    assert await controls(w).unblock(KEY)
    assert text_of(await w.turn("x")) == "x"


@story()
async def test_a_session_whose_processes_keep_ending_may_start_again(w: World) -> None:
    """At once, instead of when its breaker closes."""
    for number in range(3):
        stream = await w.send("x")
        (await w.running(actors=number + 1)).die()
        await fails(stream)
    assert (await fails(await w.send("y"))).cause == "crash-loop"
    assert not await controls(w).unblock(KEY)
    assert text_of(await w.turn("x")) == "x"
