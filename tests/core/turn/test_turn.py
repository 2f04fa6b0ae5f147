"""Turns and leases, on a clock that jumps and without any process."""

import asyncio

import pytest
from support.core_runner import collect, fails, finished, started, story
from support.world import World, passes, text_of, turn_of, until

from samovard.core.errors import (
    Draining,
    EventsExpired,
    IdTaken,
    NoProcess,
    SamovarError,
    SessionNotFound,
    TranscriptLost,
    TurnLost,
    TurnNotFound,
    TurnWithdrawn,
)
from samovard.core.events import Outcome, StartMode
from samovard.core.process import Broken
from samovard.core.records import SessionKey
from samovard.core.sessions.conversation import SessionRules
from samovard.core.turn.turn import LINGER, Disconnect, Phase
from samovard.telemetry.stages import MARKS

KEY = SessionKey("acme", "default")


@story()
async def test_events_are_told_in_order_and_end_with_the_report(w: World) -> None:
    """A stream is `turn_started`, what the agent said, and its report."""
    events = await w.turn("answer")
    assert [type(event).__name__ for event in events] == [
        "TurnStarted",
        "TextDelta",
        "TurnFinished",
    ]
    assert finished(events).result == "answer"


@story()
async def test_a_quick_answer_is_told_with_the_start_and_the_report(w: World) -> None:
    """Three events of a few moments are one response, not three."""
    await w.turn()
    w.stage.quick = "done"
    async with await w.send() as stream:
        told = [[type(e).__name__ for b in batches for e in b.events] async for batches in stream]
    assert told == [["TurnStarted", "TextDelta", "TurnFinished"]]


@story()
async def test_the_start_does_not_wait_for_a_slow_agent(w: World) -> None:
    """It is told 2 ms after the prompt was written, whatever the agent does."""
    await w.turn()
    async with await w.send() as stream:
        await anext(stream)
        now = asyncio.get_running_loop().time()
        written = turn_of(stream).stages.at("prompt_write")
        assert written is not None
        assert now - written / 1e9 == pytest.approx(LINGER)
        w.stage.last.answer()


@story()
async def test_stages_never_decrease(w: World) -> None:
    """The times of a turn's stages rise in the order of the stages."""
    timings = finished(await w.turn()).timings
    times = [getattr(timings, name) for name in MARKS if name != "deliver"]
    assert None not in times
    assert times == sorted(times)


@story()
async def test_a_report_alone_is_a_first_event(w: World) -> None:
    """An agent may have nothing to say."""
    stream = await w.send()
    (await w.running()).finish()
    timings = finished(await collect(stream)).timings
    assert timings.first_event is not None
    assert timings.first_text is None


@story(slots=1, queue=1)
async def test_too_many_waiting_turns_are_refused(w: World) -> None:
    """What the queue cannot hold is refused at once."""
    busy = await w.send(session="busy")
    actor = await w.running()
    waiting = await w.send(session="a")
    assert (await fails(await w.send(session="b"))).cause == "saturated"
    actor.answer()
    await collect(busy)
    await w.running(actors=2)
    w.stage.last.answer()
    await collect(waiting)


@story()
async def test_a_stream_lost_while_waiting_leaves_nothing(w: World) -> None:
    """A caller who leaves before the prompt leaves no turn, no session and no process."""
    async with await w.send(session="gone"):
        await until(lambda: w.stage.created)
    await until(lambda: not w.sessions.running)
    async with asyncio.timeout(5):
        while len(w.pool):
            await asyncio.sleep(0.01)
    assert not w.shelf.sessions
    assert not w.shelf.turns
    assert w.stage.removed == [w.stage.last.launch.home]


@story()
async def test_a_stream_lost_while_recording_writes_no_prompt(w: World) -> None:
    """A caller who leaves while the turn is being recorded leaves no record of it."""
    await w.turn("first")
    w.shelf.slow = 1.0
    async with await w.send("second", turn_id="lost") as stream:
        await until(lambda: turn_of(stream).phase is Phase.OPENING)
    await w.settled()
    assert len(w.stage.last.prompts) == 1
    assert (KEY, "lost") not in w.shelf.turns
    assert w.shelf.sessions[KEY].turn_count == 1


@story()
async def test_a_lost_stream_interrupts_and_a_quiet_process_is_kept(w: World) -> None:
    """After an interrupt with proof the next turn is warm on the same process."""
    async with await w.send("long") as stream:
        actor = await w.running()
        await anext(aiter(stream))
    await until(lambda: actor.proofs)
    assert actor.discarding
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    await w.settled()
    assert started(await w.turn("next")).start_mode is StartMode.WARM


@story()
async def test_a_dirty_process_is_not_used_again(w: World) -> None:
    """Without proof of quiet the process is stopped, and the session resumes."""
    stream = await w.send("long")
    actor = await w.running()
    assert await w.sessions.interrupt(KEY, turn_of(stream).turn_id)
    actor.proofs[0].set_result(False)
    error = await fails(stream)
    assert isinstance(error, TurnLost)
    assert error.cause == "unproven"
    events = await w.turn("next")
    assert started(events).start_mode is StartMode.RESUMED
    assert w.stage.last is not actor
    assert w.stage.last.launch.agent_session == actor.launch.agent_session


@story()
async def test_interrupt_ends_the_turn_as_interrupted(w: World) -> None:
    """`Interrupt` makes a report of the agent the end of the stream."""
    stream = await w.send("long")
    actor = await w.running()
    assert await w.sessions.interrupt(KEY, turn_of(stream).turn_id)
    assert not actor.discarding
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(stream)).outcome is Outcome.INTERRUPTED
    assert not await w.sessions.interrupt(KEY, turn_of(stream).turn_id)


@story()
async def test_a_waiting_turn_is_withdrawn_by_interrupt(w: World) -> None:
    """`Interrupt` of a turn that waits ends it before anything was written."""
    first = await w.send("one")
    actor = await w.running()
    second = await w.send("two")
    assert await w.sessions.interrupt(KEY, turn_of(second).turn_id)
    assert isinstance(await fails(second), TurnWithdrawn)
    actor.answer()
    await collect(first)
    assert len(actor.prompts) == 1


@story()
async def test_an_unknown_turn_cannot_be_interrupted(w: World) -> None:
    """`Interrupt` needs a turn of the session."""
    with pytest.raises(SessionNotFound):
        await w.sessions.interrupt(KEY, "x")
    await w.turn()
    with pytest.raises(TurnNotFound):
        await w.sessions.interrupt(KEY, "x")


@story(profile=SessionRules(turn_timeout=30.0))
async def test_a_turn_over_its_time_reaches_its_limit(w: World) -> None:
    """A turn that takes too long is interrupted and says that a limit was reached."""
    stream = await w.send("long", timeout=3600.0)
    actor = await w.running()
    async with asyncio.timeout(31):
        while not actor.proofs:
            await passes(0.1)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(stream)).outcome is Outcome.LIMIT_REACHED


@story()
async def test_continue_lets_a_turn_run_on(w: World) -> None:
    """With CONTINUE a lost stream changes nothing, and the turn can be joined again."""
    async with await w.send("go", turn_id="t", on_disconnect=Disconnect.CONTINUE):
        actor = await w.running()
    actor.say("still ")
    actor.answer("here")
    assert text_of(await collect(await w.send("go", turn_id="t"))) == "still here"
    assert len(actor.prompts) == 1


@story()
async def test_a_process_that_dies_idle_is_replaced(w: World) -> None:
    """After the death of an idle process the next turn resumes."""
    await w.turn()
    w.stage.last.die()
    assert started(await w.turn()).start_mode is StartMode.RESUMED


@story()
async def test_a_process_that_dies_in_mid_turn_loses_the_turn(w: World) -> None:
    """A death after the prompt is told, never repeated; the next turn resumes."""
    stream = await w.send("x")
    actor = await w.running()
    actor.die()
    error = await fails(stream)
    assert isinstance(error, TurnLost)
    assert (error.cause, error.metadata["exit"]) == ("process-died", "signal 9")
    assert error.retry_after is None
    assert started(await w.turn()).start_mode is StartMode.RESUMED
    assert len(actor.prompts) == 1


@story()
async def test_a_death_before_the_prompt_is_repaired_once(w: World) -> None:
    """A process that dies before the prompt is replaced, and nobody notices."""
    w.stage.deaf_writes = 1
    stream = await w.send("x")
    (await w.running(actors=2)).answer("x")
    assert text_of(await collect(stream)) == "x"
    assert w.shelf.sessions[KEY].turn_count == 1


@story()
async def test_a_second_death_before_the_prompt_is_told(w: World) -> None:
    """Two deaths before the prompt refuse the turn, which left no trace."""
    w.stage.deaf_writes = 2
    error = await fails(await w.send("x"))
    assert isinstance(error, NoProcess)
    assert error.cause == "process-died"
    assert error.retry_after
    await until(lambda: not w.shelf.turns)
    assert not w.shelf.sessions


@story()
async def test_a_failed_start_is_told_to_every_waiter_of_the_session(w: World) -> None:
    """When a process cannot be started, all who wait for it hear why."""
    w.stage.start_errors = [NoProcess("no", cause="start-failed", retry_after=1.0)]
    first, second = await w.send("one"), await w.send("two")
    assert (await fails(first)).cause == "start-failed"
    assert (await fails(second)).cause == "start-failed"
    assert not w.shelf.sessions


@story()
async def test_a_lost_transcript_is_told(w: World) -> None:
    """If turns had finished, a transcript that is gone is an error."""
    await w.turn()
    w.stage.last.die()
    w.stage.start_errors = [TranscriptLost()]
    assert isinstance(await fails(await w.send("y")), TranscriptLost)


@story()
async def test_a_missing_end_frame_costs_the_process_only(w: World) -> None:
    """A turn is over with its report; a process that never gets quiet is stopped."""
    stream = await w.send("x")
    actor = await w.running()
    actor.finish("x")
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED
    await passes(3)
    assert actor.stopped
    assert started(await w.turn()).start_mode is StartMode.RESUMED


@story()
async def test_unasked_work_keeps_a_process_from_being_lent(w: World) -> None:
    """A process that works unasked is not used until it is proven quiet."""
    await w.turn()
    actor = w.stage.last
    actor.listener.on_unsolicited(1)
    stream = await w.send("x")
    await passes(0.1)
    assert len(actor.prompts) == 1
    actor.listener.on_quiet()
    await w.running(prompts=2)
    actor.answer("x")
    assert text_of(await collect(stream)) == "x"


@story()
async def test_a_foreign_frame_blocks_the_session(w: World) -> None:
    """After a frame of another session nothing runs in this one until it is closed."""
    stream = await w.send("x")
    actor = await w.running()
    actor.listener.on_broken(Broken.FOREIGN)
    error = await fails(stream)
    assert (error.reason, error.cause, error.prompt_written) == (
        "INTERNAL",
        "protocol-violated",
        True,
    )
    assert actor.killed
    with pytest.raises(SamovarError) as blocked:
        await w.send("y")
    assert blocked.value.cause == "session-blocked"
    await w.sessions.close(KEY)
    assert started(await w.turn()).start_mode is StartMode.COLD


@story()
async def test_a_broken_line_loses_the_turn(w: World) -> None:
    """Half a protocol is none: the process ends, the session goes on."""
    stream = await w.send("x")
    (await w.running()).listener.on_broken(Broken.LINE_TOO_LONG)
    assert (await fails(stream)).cause == "line-too-long"
    assert started(await w.turn()).start_mode is StartMode.RESUMED


@story()
async def test_a_turn_id_with_other_content_is_taken(w: World) -> None:
    """One turn id stands for one content."""
    await w.turn("one", turn_id="t")
    with pytest.raises(IdTaken):
        await w.send("two", turn_id="t")


@story()
async def test_a_turn_is_never_run_twice(w: World) -> None:
    """A repeated `Send` replays, from memory or, once that is gone, by saying so."""
    events = await w.turn("one", turn_id="t")
    assert await collect(await w.send("one", turn_id="t")) == events
    await passes(301)
    assert isinstance(await fails(await w.send("one", turn_id="t")), EventsExpired)
    assert len(w.stage.last.prompts) == 1


@story()
async def test_draining_refuses_new_and_waiting_turns(w: World) -> None:
    """A server that goes away lets running turns end and refuses all others."""
    running, waiting = await w.send("one"), await w.send("two")
    actor = await w.running()
    w.sessions.refuse_new()
    assert isinstance(await fails(waiting), Draining)
    with pytest.raises(Draining):
        await w.send("three")
    actor.answer("one")
    assert text_of(await collect(running)) == "one"
    async with asyncio.timeout(1):
        while len(w.pool):
            await asyncio.sleep(0.01)


@story()
async def test_what_stopped_a_turn_first_says_how_it_ended(w: World) -> None:
    """A turn that was interrupted before its limit is interrupted; the other way round, not."""
    stopped = await w.send("x", timeout=5.0)
    actor = await w.running()
    await w.sessions.interrupt(KEY, turn_of(stopped).turn_id)
    await passes(4.9)
    limited = asyncio.create_task(collect(stopped))
    await passes(0.2)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await limited).outcome is Outcome.INTERRUPTED
    again = await w.send("y", timeout=5.0)
    await w.running(prompts=2)
    await passes(5.1)
    await w.sessions.interrupt(KEY, turn_of(again).turn_id)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[1].set_result(True)
    assert finished(await collect(again)).outcome is Outcome.LIMIT_REACHED
