"""Sessions and the pool, on a clock that jumps and without any process."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from support.core_runner import collect, fails, finished, started, story
from support.world import Shelf, Stage, World, passes, run, text_of, turn_of, until, world

from samovard.core.errors import (
    EventsExpired,
    IdTaken,
    Misconfigured,
    NoProcess,
    RequestInvalid,
    SessionBusy,
    SessionNotFound,
    TranscriptLost,
    TurnLost,
    TurnWithdrawn,
)
from samovard.core.events import Notice, Outcome, StartMode
from samovard.core.pool.states import ProcessState
from samovard.core.records import SessionKey, Spec
from samovard.core.sessions.conversation import SessionRules, TurnRequest
from samovard.core.sessions.session import SessionState
from samovard.core.turn.turn import Disconnect

KEY = SessionKey("acme", "default")


@story()
async def test_second_turn_is_warm_on_the_same_process(w: World) -> None:
    """The first turn starts a process, the second one uses it."""
    first, second = started(await w.turn("one")), started(await w.turn("two"))
    assert (first.start_mode, second.start_mode) == (StartMode.COLD, StartMode.WARM)
    assert (first.pid, first.process_turn) == (second.pid, second.process_turn - 1)


@story()
async def test_one_name_of_two_tenants_is_two_sessions(w: World) -> None:
    """Two tenants' sessions of one name have two processes and two directories."""
    await w.turn("mine", tenant="acme")
    await w.turn("yours", tenant="blue")
    mine, yours = w.stage.created
    assert mine.launch.home != yours.launch.home
    assert [prompt.content for prompt in mine.prompts] != [p.content for p in yours.prompts]


@story()
async def test_another_tenants_session_is_not_found(w: World) -> None:
    """A session that another tenant has is as unknown as one that nobody has."""
    await w.turn(session="secret", tenant="acme")
    with pytest.raises(SessionNotFound) as theirs:
        await w.sessions.get(SessionKey("blue", "secret"))
    with pytest.raises(SessionNotFound) as nobodys:
        await w.sessions.get(SessionKey("blue", "nothing"))
    assert repr(theirs.value) == repr(nobodys.value)


@story()
async def test_second_turn_waits_and_a_third_is_refused(w: World) -> None:
    """One turn may wait behind the running one; the next is refused and told why."""
    first = await w.send("one")
    actor = await w.running()
    second = await w.send("two")
    with pytest.raises(SessionBusy) as busy:
        await w.send("three")
    assert busy.value.metadata["turnId"] == turn_of(first).turn_id
    actor.answer("one")
    assert text_of(await collect(first)) == "one"
    await w.running(prompts=2)
    actor.answer("two")
    assert text_of(await collect(second)) == "two"


@story(slots=1, max_wait=60.0)
async def test_waiting_ends_after_max_wait(w: World) -> None:
    """A turn that gets no process in time is told so and may be repeated."""
    busy = await w.send(session="busy")
    await w.running()
    error = await fails(await w.send(session="other"))
    assert isinstance(error, NoProcess)
    assert error.cause == "saturated"
    assert error.retry_after
    w.stage.last.answer()
    await collect(busy)


async def gone(w: World) -> None:
    """Wait until nothing is left of any process."""
    async with asyncio.timeout(60):
        while len(w.pool):
            await passes(0.01)


async def stopped(w: World) -> None:
    """Run a turn that is interrupted, and end its process."""
    stream = await w.send("x", turn_id="stopped")
    actor = await w.running()
    await w.sessions.interrupt(KEY, "stopped")
    actor.finish(outcome=Outcome.INTERRUPTED)
    assert finished(await collect(stream)).outcome is Outcome.INTERRUPTED
    actor.die()
    await gone(w)


async def lost(w: World) -> None:
    """Run a turn whose process dies."""
    stream = await w.send("x")
    (await w.running(actors=len(w.stage.created) + 1)).die()
    assert isinstance(await fails(stream), TurnLost)


@pytest.mark.parametrize("end", [stopped, lost])
def test_a_session_of_which_nothing_was_kept_starts_over(
    end: Callable[[World], Awaitable[None]],
) -> None:
    """However its turn ended: it is cold, it is told, and the operator hears of no loss."""

    async def told() -> None:
        async with world(stage=Stage(keeps=False)) as w:
            await end(w)
            w.stage.start_errors = [TranscriptLost()]
            again = await w.send("y")
            (await w.running(actors=3)).answer("y")
            events = await collect(again)
            assert started(events).start_mode is StartMode.COLD
            assert [e.code for e in events if isinstance(e, Notice)] == ["started-over"]
            assert w.noted.incidents["session.started_over"] == 1
            assert w.noted.incidents["transcript.lost"] == 0
            assert not any(isinstance(e, Notice) for e in await w.turn("z"))

    run(told())


@pytest.mark.parametrize("end", [stopped, lost])
def test_a_session_of_which_something_was_kept_does_not_start_over(
    end: Callable[[World], Awaitable[None]],
) -> None:
    """A turn that was cut short may be all that there was, and it was something."""

    async def told() -> None:
        async with world() as w:
            await end(w)
            for _ in range(2):
                w.stage.start_errors = [TranscriptLost()]
                assert isinstance(await fails(await w.send("y")), TranscriptLost)
            assert w.noted.incidents["transcript.lost"] == 2

    run(told())


@story(stage=Stage(keeps=False), profile=SessionRules(queue=2))
async def test_turns_that_wait_together_start_over_together(w: World) -> None:
    """The conversation that the first of them begins is the one that is gone on with."""
    await stopped(w)
    w.stage.start_errors = [TranscriptLost()]
    streams = [await w.send("y"), await w.send("z")]
    (await w.running(actors=3)).answer("y")
    (await w.running(actors=3, prompts=2)).answer("z")
    modes = {started(await collect(stream)).start_mode for stream in streams}
    assert modes == {StartMode.COLD, StartMode.WARM}
    assert w.shelf.sessions[KEY].agent_session == w.stage.last.launch.agent_session


@story(stage=Stage(keeps=False))
async def test_a_transcript_is_looked_for_until_it_was_seen(w: World) -> None:
    """At each turn's end; once it was seen warm turns do without the look."""
    await w.turn("a")
    await w.turn("b")
    w.stage.keeps = True
    await w.turn("c")
    assert w.stage.looks == 3
    await w.turn("d")
    assert w.stage.looks == 3


@story(slots=2)
async def test_the_least_recently_used_process_makes_room(w: World) -> None:
    """With all slots taken, the process that idles longest is evicted."""
    for name in ("a", "b", "a", "c"):
        await w.turn(session=name)
    assert {p.key.session for p in w.pool if p.state is ProcessState.IDLE} == {"a", "c"}
    assert started(await w.turn(session="b")).start_mode is StartMode.RESUMED


@story(idle_ttl=600.0)
async def test_an_idle_process_ends_after_its_time(w: World) -> None:
    """A process that idles too long is stopped by a timer, not by the next call."""
    await w.turn()
    await passes(599)
    assert len(w.pool) == 1
    await passes(2)
    assert len(w.pool) == 0


def test_a_session_survives_a_restart() -> None:
    """What another server began goes on, and a turn that it left open is lost."""
    shelf = Shelf()

    async def told() -> None:
        async with world(shelf=shelf) as w:
            await w.turn("one", turn_id="finished")
            stream = await w.send("two", turn_id="open", on_disconnect=Disconnect.CONTINUE)
            await w.running(prompts=2)
            shelf.down = True  # as if the server were killed now
            w.stage.last.die()
            assert (await fails(stream)).reason == "TURN_LOST"
        shelf.down = False
        async with world(shelf=shelf) as w:
            with pytest.raises(EventsExpired):
                await w.send("one", turn_id="finished")
            with pytest.raises(TurnLost) as lost:
                await w.send("two", turn_id="open")
            assert lost.value.cause == "server-restarted"
            assert started(await w.turn("three")).start_mode is StartMode.RESUMED

    run(told())


@story()
async def test_named_sessions_need_a_spec_and_keep_it(w: World) -> None:
    """Without a spec a named session is not made; with another one it is not given."""
    sending = turn_of(await w.send("x", session="made", spec=Spec(labels={"a": "b"})))
    (await w.running()).answer()
    await until(lambda: sending.error is None and sending.report.done())
    with pytest.raises(SessionNotFound):
        await w.sessions.begin(TurnRequest(SessionKey("acme", "other"), sending.prompt, b""))
    with pytest.raises(IdTaken):
        await w.send("y", session="made", spec=Spec(labels={"a": "c"}))
    await collect(sending.follow())


@story(profile=SessionRules(model="haiku", models=("opus",)))
async def test_a_model_must_be_allowed(w: World) -> None:
    """A session may choose a model that its profile lists."""
    await w.turn(session="a", spec=Spec(model="opus"))
    assert w.stage.last.launch.model == "opus"
    with pytest.raises(RequestInvalid):
        await w.send(session="b", spec=Spec(model="sonnet"))
    with pytest.raises(RequestInvalid):
        await w.send(session="c", spec=Spec(profile="none"))


@story()
async def test_close_ends_everything_of_a_session(w: World) -> None:
    """A closed session has no process, no directory and no records; its name is free."""
    running, waiting = await w.send("one"), await w.send("two")
    actor = await w.running()
    closing = asyncio.create_task(w.sessions.close(KEY))
    await until(lambda: actor.proofs)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    info = await closing
    assert info is not None
    assert info.state is SessionState.CLOSED
    assert finished(await collect(running)).outcome is Outcome.INTERRUPTED
    assert isinstance(await fails(waiting), TurnWithdrawn)
    assert (w.shelf.sessions, w.shelf.turns) == ({}, {})
    assert w.stage.removed == [actor.launch.home]
    assert await w.sessions.close(KEY) is None
    assert started(await w.turn("new")).start_mode is StartMode.COLD


@story()
async def test_state_tells_where_a_session_is(w: World) -> None:
    """A session runs, is warm, and is suspended once its process is gone."""
    stream = await w.send()
    actor = await w.running()
    assert (await w.sessions.get(KEY)).state is SessionState.RUNNING
    assert (await w.sessions.get(KEY)).active_turn_id == turn_of(stream).turn_id
    actor.answer()
    await collect(stream)
    assert (await w.sessions.get(KEY)).state is SessionState.WARM
    actor.die()
    assert (await w.sessions.get(KEY)).state is SessionState.SUSPENDED


@story()
async def test_a_store_that_is_down_refuses_turns(w: World) -> None:
    """Without a store no turn begins, and it may be repeated."""
    w.shelf.down = True
    with pytest.raises(NoProcess) as error:
        await w.send("x")
    assert error.value.cause == "store-down"


@story(profile=SessionRules(session_ttl=3600.0))
async def test_a_session_ends_after_its_time(w: World) -> None:
    """A session in which no turn began for so long is closed, directory and all."""
    await w.turn("old", session="old")
    await passes(3000)
    await w.turn("young", session="young")
    await passes(700)
    assert await w.sessions.close_expired() == 1
    assert {key.session for key in w.shelf.sessions} == {"young"}
    assert w.stage.removed == [w.stage.created[0].launch.home]
    assert await w.sessions.close_expired() == 0


@story(profile=SessionRules(session_ttl=3600.0))
async def test_a_session_whose_profile_was_removed_is_its_tenants_still(w: World) -> None:
    """It is read, listed, joined, interrupted, closed and expires; only turns are refused."""
    for name in ("default", "other"):
        await w.turn("one", session=name, turn_id="one")
        w.stage.last.die()
    await passes(600)
    for key, record in w.shelf.sessions.items():
        w.shelf.sessions[key] = replace(record, spec=replace(record.spec, profile="removed"))
    with pytest.raises(Misconfigured) as refused:
        await w.send("two")
    assert refused.value.cause == "options-refused"
    assert (await w.sessions.get(KEY)).record.turn_count == 1
    assert len(await w.sessions.list("acme", None, 10)) == 2
    assert finished(await collect(await w.sessions.attach(KEY, "one", 2))).result == "one"
    assert await w.sessions.interrupt(KEY, "one") is False
    assert await w.sessions.close(KEY) is not None
    await passes(3600)
    assert await w.sessions.close_expired() == 1
    assert (w.shelf.sessions, len(w.sessions)) == ({}, 0)


@story(slots=1, defects=1)
async def test_a_defect_in_a_start_is_told_and_costs_no_slot(w: World) -> None:
    """Whatever goes wrong in a start, its waiter hears of it and the slot comes free."""
    w.stage.start_errors = [OSError(24, "too many open files")]
    assert (await fails(await w.send("one"))).cause == "start-failed"
    assert text_of(await w.turn("two")) == "two"


@story()
async def test_a_session_closed_by_many_at_once_is_closed_for_all(w: World) -> None:
    """`CloseSession` done three times at once equals once, and the name is free."""
    await w.turn("one")
    infos = await asyncio.gather(*(w.sessions.close(KEY) for _ in range(3)))
    assert sum(info is not None for info in infos) == 1
    assert len(w.stage.removed) == 1
    assert started(await w.turn("new")).start_mode is StartMode.COLD


@story(profile=SessionRules(session_ttl=3600.0))
async def test_a_session_in_which_a_turn_begins_has_not_expired(w: World) -> None:
    """What the store said of its time a moment ago does not end a session in use."""
    await w.turn("first")
    await passes(3700)
    w.shelf.slow = 1.0
    expiring = asyncio.create_task(w.sessions.close_expired())
    stream = await w.send("second")
    assert await expiring == 0
    actor = await w.running(actors=2)
    actor.answer("second")
    assert text_of(await collect(stream)) == "second"


@story(slots=1, profile=SessionRules(queue=0))
async def test_who_is_refused_as_busy_is_told_of_a_turn_that_waits_for_a_process(w: World) -> None:
    """The turn that is in the way, though none runs."""
    other = await w.send("one", session="other")
    actor = await w.running()
    waiting = await w.send("two", turn_id="t")
    with pytest.raises(SessionBusy) as busy:
        await w.send("three")
    assert busy.value.metadata == {"turnId": "t"}
    actor.answer("one")
    await collect(other)
    (await w.running(actors=2)).answer("two")
    await collect(waiting)


@story(idle_ttl=60.0)
async def test_only_sessions_in_use_are_in_memory(w: World) -> None:
    """A session without turns and without a process is in the store alone."""
    await w.turn("one")
    assert repr(w.sessions) == "<Sessions held=1 running=0>"
    await passes(3600)
    assert repr(w.sessions) == "<Sessions held=0 running=0>"
    assert (await w.sessions.get(KEY)).record.turn_count == 1
    assert repr(w.sessions) == "<Sessions held=0 running=0>"


@story()
async def test_a_turn_that_ran_is_told_its_end_whatever_refuses_another(w: World) -> None:
    """Even where a process waits: a blocked session, for one, refuses new turns only."""
    await w.turn("x", turn_id="t")
    await passes(301)  # it is held no longer
    assert w.pool.process_of(KEY)
    w.directory.on_foreign(KEY)
    with pytest.raises(EventsExpired):
        await w.send("x", turn_id="t")
    w.shelf.down = True
    for turn_id in ("t", "u"):  # which of them ran cannot be found out
        with pytest.raises(Misconfigured):
            await w.send("x", turn_id=turn_id)
