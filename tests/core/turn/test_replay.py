"""Joining a turn again, on a clock that jumps and without any process."""

import asyncio

import pytest
from support.core_runner import collect, fails, finished, started, story
from support.world import Shelf, World, passes, run, text_of, turn_of, until, world

from samovard.core.errors import (
    EventsExpired,
    IdTaken,
    QuotaExceeded,
    RequestInvalid,
    SamovarError,
    SessionNotFound,
    TurnLost,
    TurnNotFound,
    TurnWithdrawn,
)
from samovard.core.events import Event, Outcome, StartMode, TextDelta, TurnFinished, TurnStarted
from samovard.core.process import Broken
from samovard.core.records import SessionKey
from samovard.core.turn.event_log import Batch
from samovard.core.turn.turn import Disconnect, Phase, StreamBounds

KEY = SessionKey("acme", "default")
CONTINUE = Disconnect.CONTINUE


async def attached(
    w: World, turn_id: str = "t", after: int = 0, key: SessionKey = KEY
) -> list[tuple[int, Event]]:
    """Attaches and gives what comes to the end of the turn, numbered."""
    async with await w.sessions.attach(key, turn_id, after) as stream:
        batches: list[Batch] = [batch async for ready in stream for batch in ready]
    return [pair for batch in batches for pair in enumerate(batch.events, batch.sequence)]


async def refused(w: World, turn_id: str = "t", after: int = 0) -> SamovarError:
    with pytest.raises(SamovarError) as caught:
        await attached(w, turn_id, after)
    return caught.value


@story()
async def test_a_turn_that_is_being_withdrawn_is_followed(w: World) -> None:
    """Attached while its record is taken back, a stream ends as the turn does."""
    await w.turn("first")
    w.shelf.slow = 1.0
    stream = await w.send("second", turn_id="t")
    await until(lambda: turn_of(stream).phase is Phase.OPENING)
    await w.sessions.interrupt(KEY, "t")
    await passes(1.5)  # the record was made, and is not taken back yet
    w.shelf.slow = 0.001
    assert type(await refused(w)) is TurnWithdrawn
    assert type(await fails(stream)) is TurnWithdrawn


@story()
async def test_attach_waits_with_a_waiting_turn(w: World) -> None:
    """Attached to a turn that waits, a stream is silent until the prompt is written."""
    first = await w.send("one")
    actor = await w.running()
    second = await w.send("two", turn_id="t")
    joined = asyncio.create_task(attached(w))
    await passes(5)
    assert not joined.done()
    actor.answer("one")
    await w.running(prompts=2)
    actor.answer("two")
    events = await joined
    assert [number for number, _ in events] == [1, 2, 3]
    assert [event for _, event in events] == await collect(second)
    await collect(first)


@story()
async def test_attach_follows_a_running_turn_after_a_number(w: World) -> None:
    """What comes begins right behind the number and has neither gap nor repeat."""
    stream = await w.send("go", turn_id="t")
    actor = await w.running()
    actor.say("a", "b", "c")  # one batch: events 2 to 4
    joined = asyncio.create_task(attached(w, after=3))
    await passes(1)
    actor.answer("d")
    events = await joined
    assert [number for number, _ in events] == [4, 5, 6]
    assert text_of([event for _, event in events]) == "cd"
    await collect(stream)


@story(bounds=StreamBounds(streams=2))
async def test_streams_of_one_turn_are_bounded(w: World) -> None:
    """The next `Attach` is told when to try again, a repeated `Send` is served, and with a stream
    that leaves there is room."""
    stream = await w.send("go", turn_id="t", on_disconnect=CONTINUE)
    actor = await w.running()
    async with await w.sessions.attach(KEY, "t", 0):
        error = await refused(w)
        assert isinstance(error, QuotaExceeded)
        assert (error.cause, error.retry_after, error.subject) == ("streams", 1.0, "turn:t")
        again = await w.send("go", turn_id="t", on_disconnect=CONTINUE)
        again.leave()
    joined = asyncio.create_task(attached(w))
    await passes(1)
    actor.answer("x")
    assert text_of([event for _, event in await joined]) == "x"
    await collect(stream)


@story()
async def test_attach_replays_a_finished_turn(w: World) -> None:
    """A turn whose events are held is told as it was, from any number on."""
    events = await w.turn("one", turn_id="t")
    for after in range(4):
        told = await attached(w, after=after)
        assert told == [*enumerate(events, 1)][after:]


@story()
async def test_attach_behind_the_last_event_of_a_finished_turn_is_empty(w: World) -> None:
    """There is nothing to send: the stream ends well, whoever knows the turn by now."""
    await w.turn("one", turn_id="t")
    assert await attached(w, after=3) == []
    await passes(301)
    assert await attached(w, after=3) == []


@story()
async def test_attach_past_the_last_event_is_refused(w: World) -> None:
    """A number that was never told is a bad request, while it runs, held and stored."""
    stream = await w.send("go", turn_id="t")
    actor = await w.running()
    assert isinstance(await refused(w, after=2), RequestInvalid)
    actor.answer("x")
    await collect(stream)
    assert isinstance(await refused(w, after=4), RequestInvalid)
    await passes(301)
    assert isinstance(await refused(w, after=4), RequestInvalid)


@story()
async def test_attach_gets_the_latest_report_when_its_events_are_gone(w: World) -> None:
    """The session's latest `turn_finished` is held as long as the session; nothing else is."""
    events = await w.turn("one", turn_id="t")
    held = await w.sessions.attach(KEY, "t", 2)
    times = [batch.time async for ready in held for batch in ready]
    await passes(301)
    error = await refused(w, after=1)
    assert isinstance(error, EventsExpired)
    assert error.metadata == {"oldestSequence": "3", "lastSequence": "3"}
    assert await attached(w, after=2) == [(3, events[-1])]
    stored = await w.sessions.attach(KEY, "t", 2)
    assert [batch.time async for ready in stored for batch in ready] == times


@story()
async def test_attach_to_an_older_turn_whose_events_are_gone_is_told_so(w: World) -> None:
    """Once another turn of the session has finished, nothing is held of an older one."""
    await w.turn("one", turn_id="t")
    await passes(301)
    await w.turn("two")
    error = await refused(w, after=2)
    assert isinstance(error, EventsExpired)
    assert error.metadata == {"lastSequence": "3"}


@story(bounds=StreamBounds(hold=1000))
async def test_attach_before_the_oldest_event_held_is_told_which_that_is(w: World) -> None:
    """Who is told EVENTS_EXPIRED may attach after the oldest event minus 1."""
    async with await w.send("go", turn_id="t", on_disconnect=CONTINUE):
        actor = await w.running()
    for _ in range(5):
        actor.say("x" * 600)
    error = await refused(w, after=1)
    assert isinstance(error, EventsExpired)
    assert error.metadata["lastSequence"] == "6"
    oldest = int(error.metadata["oldestSequence"])
    joined = asyncio.create_task(attached(w, after=oldest - 1))
    await passes(1)
    actor.answer("end")
    assert [number for number, _ in await joined] == [*range(oldest, 9)]


@story()
async def test_attach_needs_a_session_and_a_turn(w: World) -> None:
    """Without the session, or in it without the turn, there is nothing to follow."""
    assert isinstance(await refused(w), SessionNotFound)
    await w.turn(turn_id="t")
    assert isinstance(await refused(w, "other"), TurnNotFound)
    with pytest.raises(SessionNotFound):
        await attached(w, key=SessionKey("blue", "default"))


@story()
async def test_attach_ends_as_the_turn_ends(w: World) -> None:
    """What is held is told, then the status that the turn's own `Send` got; also later."""
    stream = await w.send("go", turn_id="t")
    actor = await w.running()
    actor.say("half")
    actor.die()
    own = await fails(stream)
    for _ in range(2):
        events: list[Event] = []
        joined = await w.sessions.attach(KEY, "t", 1)
        with pytest.raises(TurnLost) as lost:
            async for batches in joined:
                events += [event for batch in batches for event in batch.events]
        assert text_of(events) == "half"
        assert lost.value is own
    await passes(301)
    stored = await refused(w, after=1)
    assert (stored.reason, stored.cause) == (own.reason, own.cause)
    assert stored.prompt_written
    assert stored.metadata["lastSequence"] == own.metadata["lastSequence"] == "2"


@story()
async def test_a_turn_that_broke_the_protocol_stays_internal(w: World) -> None:
    """A stored end has the reason that it had, for `Send` and for `Attach`."""
    stream = await w.send("go", turn_id="t")
    (await w.running()).listener.on_broken(Broken.UNPARSABLE)
    own = await fails(stream)
    await passes(301)
    with pytest.raises(SamovarError) as repeated:
        await w.send("go", turn_id="t")
    for error in (repeated.value, await refused(w)):
        assert (error.reason, error.cause, error.prompt_written) == (
            own.reason,
            own.cause,
            own.prompt_written,
        )


@story()
async def test_attach_neither_keeps_a_turn_running_nor_stops_it(w: World) -> None:
    """The loss of the `Send` stream counts though others are attached; theirs never does."""
    async with await w.send("go", turn_id="t") as stream:
        actor = await w.running()
        async with await w.sessions.attach(KEY, "t", 0):
            pass
        await passes(1)
        assert not actor.proofs
        joined = await w.sessions.attach(KEY, "t", 0)
        await anext(stream)
    await until(lambda: actor.proofs)
    assert not actor.discarding
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(joined)).outcome is Outcome.INTERRUPTED


@story()
async def test_attach_does_not_keep_a_waiting_turn(w: World) -> None:
    """A `Send` stream that is lost before the prompt withdraws the turn, attached or not."""
    first = await w.send("one")
    actor = await w.running()
    async with await w.send("two", turn_id="t", on_disconnect=CONTINUE):
        joined = await w.sessions.attach(KEY, "t", 0)
    assert isinstance(await fails(joined), TurnWithdrawn)
    assert isinstance(await refused(w), TurnNotFound)
    actor.answer()
    await collect(first)


@story()
async def test_all_streams_of_a_turn_see_the_same(w: World) -> None:
    """Every `Send` and `Attach` of a turn gets the same events with the same numbers."""
    own = await w.send("go", turn_id="t")
    actor = await w.running()
    again, joined = await w.send("go", turn_id="t"), await w.sessions.attach(KEY, "t", 0)
    actor.say("a", "b")
    actor.answer("c")
    told = [await collect(stream) for stream in (own, again, joined)]
    assert told[0] == told[1] == told[2]
    assert [type(event) for event in told[0]] == [TurnStarted, *[TextDelta] * 3, TurnFinished]


def test_a_turn_that_ran_when_the_server_died_is_lost() -> None:
    """After a restart a turn without an end is TURN_LOST, and a report is still there."""
    shelf = Shelf()

    async def told() -> None:
        async with world(shelf=shelf) as w:
            events = await w.turn("one", turn_id="finished")
            stream = await w.send("two", turn_id="t", on_disconnect=CONTINUE)
            await w.running(prompts=2)
            shelf.down = True  # as if the server were killed now
            w.stage.last.die()
            await fails(stream)
        shelf.down = False
        async with world(shelf=shelf) as w:
            assert await attached(w, "finished", 2) == [(3, events[-1])]
            lost = await refused(w)
            assert (lost.reason, lost.cause) == ("TURN_LOST", "server-restarted")
            assert lost.prompt_written
            assert started(await w.turn("three"))

    run(told())


@story()
async def test_a_turn_that_begins_while_the_store_is_asked_is_followed(w: World) -> None:
    """A look into the store that is overtaken by the turn's own `Send` does not win."""
    await w.turn("one")
    w.shelf.slow = 1.0
    joined = asyncio.create_task(attached(w))
    await until(lambda: w.shelf.calls)
    w.shelf.slow = 0.001
    stream = await w.send("two", turn_id="t")
    await w.running(prompts=2)
    w.stage.last.answer("two")
    assert [event for _, event in await joined] == await collect(stream)


@story()
async def test_a_draining_server_lets_turns_be_joined(w: World) -> None:
    """Going away, it takes no new turns; one that it has can still be followed."""
    stream = await w.send("go", turn_id="t", on_disconnect=CONTINUE)
    actor = await w.running()
    w.sessions.refuse_new()
    again = await w.send("go", turn_id="t")
    actor.answer("x")
    assert await collect(again) == await collect(stream)


@story()
async def test_a_stream_lost_before_the_prompt_can_be_sent_again_at_once(w: World) -> None:
    """While a lost turn is being withdrawn, the same `Send` waits for that and begins anew."""
    await w.turn("one")
    w.shelf.slow = 1.0
    async with await w.send("two", turn_id="t") as lost:
        await until(lambda: turn_of(lost).phase is Phase.OPENING)
    again = await w.send("two", turn_id="t")
    await w.running(prompts=2)
    w.stage.last.answer("two")
    assert text_of(await collect(again)) == "two"
    assert len(w.stage.last.prompts) == 2


@story()
async def test_a_known_turn_is_never_refused_as_if_it_had_not_run(w: World) -> None:
    """Busy, blocked or draining: a turn of which only the store knows is told what it is."""
    await w.turn("one", turn_id="t")
    await passes(301)
    streams = [await w.send("busy"), await w.send("queued")]
    actor = await w.running(prompts=2)
    with pytest.raises(EventsExpired):
        await w.send("one", turn_id="t")
    with pytest.raises(IdTaken):
        await w.send("other", turn_id="t")
    actor.answer()
    await w.running(prompts=3)
    actor.answer()
    for stream in streams:
        await collect(stream)
    actor.listener.on_broken(Broken.FOREIGN)
    w.sessions.refuse_new()
    await passes(10)
    with pytest.raises(EventsExpired):
        await w.send("one", turn_id="t")


@story()
async def test_attach_is_not_fooled_by_a_repeated_send(w: World) -> None:
    """While a repeated `Send` of a stored turn still waits to be told, `Attach` gets what it
    would get without it."""
    events = await w.turn("one", turn_id="t")
    await passes(301)
    w.shelf.slow = 1.0
    again = await w.send("one", turn_id="t")
    assert await attached(w, after=2) == [(3, events[-1])]
    assert isinstance(await fails(again), EventsExpired)
    assert len(w.stage.last.prompts) == 1


@story()
async def test_a_session_that_is_closed_meanwhile_is_made_again(w: World) -> None:
    """A `Send` that looks into the store while its session is closed gets the new session."""
    await w.turn("one", turn_id="t")
    w.stage.last.die()
    w.shelf.slow = 1.0
    sending = asyncio.create_task(w.send("two"))
    await until(lambda: w.shelf.calls)
    await w.sessions.close(KEY)
    w.shelf.slow = 0.001
    stream = await sending
    assert w.directory._sessions[KEY].runners[turn_of(stream).turn_id].turn is turn_of(stream)
    (await w.running(actors=2)).answer()
    assert started(await collect(stream)).start_mode is StartMode.COLD
