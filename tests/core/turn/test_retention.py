"""All held events together stay within one bound, on a clock that jumps."""

import asyncio

import pytest
from support.core_runner import collect, fails, finished, story
from support.world import World, passes, turn_of, until

from samovard.core.errors import EventsExpired, ReaderTooSlow
from samovard.core.events import Outcome
from samovard.core.records import SessionKey
from samovard.core.turn.retention import TURN_BYTES, EventRetention
from samovard.core.turn.turn import Disconnect, StreamBounds

CONTINUE = Disconnect.CONTINUE
KIB = 1 << 10


def key(session: str) -> SessionKey:
    return SessionKey("acme", session)


async def held_turn(w: World, session: str, size: int) -> None:
    """Runs a turn that says so many bytes."""
    await w.turn("x" * size, session=session, turn_id=session)


async def is_held(w: World, turn: str) -> bool:
    """Tells whether a turn can still be followed from its first event."""
    try:
        await collect(await w.sessions.attach(key(turn), turn, 0))
    except EventsExpired:
        return False
    return True


@story(slots=8, retention=EventRetention(300.0, 100 * KIB))
async def test_the_turn_that_ended_first_goes_first(w: World) -> None:
    """When all together hold too much, ended turns are let go in the order of their end."""
    for name in "abcd":
        await held_turn(w, name, 16 * KIB)  # and as much for the report's text
    assert [name for name in "abcd" if await is_held(w, name)] == ["c", "d"]
    assert w.retention.bytes <= 100 * KIB


@story(slots=8, retention=EventRetention(300.0, 100 * KIB))
async def test_a_turn_that_was_let_go_is_what_it_would_be_later(w: World) -> None:
    """Its report is in the store, and it is never run again."""
    for name in "abcd":
        await held_turn(w, name, 16 * KIB)
    last = await collect(await w.sessions.attach(key("a"), "a", 2))
    assert finished(last).result == "x" * 16 * KIB
    again = await w.send("x" * 16 * KIB, session="a", turn_id="a")
    assert isinstance(await fails(again), EventsExpired)


@story(slots=8, retention=EventRetention(300.0, 1000 * KIB))
async def test_the_bound_holds_whatever_the_turns_do(w: World) -> None:
    """A hundred turns leave no more than the bound, and small ones count as well."""
    for number in range(100):
        await held_turn(w, f"s{number % 8}-{number}", 16 * KIB)
        assert w.retention.bytes <= 1000 * KIB
    for number in range(200):
        await w.turn(session=f"small{number}")
        assert w.retention.bytes <= 1000 * KIB
    assert len(w.directory._sessions) <= 1000 * KIB // TURN_BYTES


@story(retention=EventRetention(300.0, 100 * KIB), bounds=StreamBounds(hold=1000 * KIB))
async def test_running_turns_give_what_was_read_of_them(w: World) -> None:
    """With no ended turn left, the running one that has most gives its oldest events."""
    small = await w.send(session="small", turn_id="small", on_disconnect=CONTINUE)
    actor = await w.running()
    actor.say(*["s" * KIB] * 8)
    async with await w.send(session="large", turn_id="large", on_disconnect=CONTINUE):
        await w.running(actors=2)
    for _ in range(200):
        w.stage.last.say("l" * KIB)
        assert w.retention.bytes <= 100 * KIB
    assert not await is_held(w, "large")
    w.stage.last.answer()
    actor.answer()
    assert len(await collect(small)) == 11


@story(
    retention=EventRetention(300.0, 50 * KIB),
    bounds=StreamBounds(hold=1000 * KIB, unread=500 * KIB),
)
async def test_what_a_reader_has_not_read_is_kept(w: World) -> None:
    """Neither a running turn nor an ended one loses what its own `Send` has yet to read."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    await anext(stream)
    actor.say(*["x" * KIB] * 100)
    assert w.retention.bytes > 100 * KIB
    actor.finish("x")
    await passes(1)
    assert turn_of(stream).ended
    events = await collect(stream)
    assert len(events) == 101
    assert w.retention.bytes <= 50 * KIB
    with pytest.raises(EventsExpired):
        await w.sessions.attach(key("default"), "t", 0)


@story(retention=EventRetention(300.0, 50 * KIB), bounds=StreamBounds(hold=1000 * KIB))
async def test_attach_does_not_keep_what_it_has_not_read(w: World) -> None:
    """An `Attach` stream whose events are let go is dropped as one that is too slow."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    joined = await w.sessions.attach(key("default"), "t", 0)
    await anext(joined)
    actor.say(*["x" * KIB] * 100)
    actor.answer()
    await collect(stream)
    error = await fails(joined)
    assert isinstance(error, ReaderTooSlow)
    assert error.metadata == {"turnId": "t", "lastSequence": "1"}


@story()
async def test_a_stream_that_is_not_read_for_so_long_is_dropped(w: World) -> None:
    """When the events of an ended turn are let go, so is whoever never came to read them."""
    stream = await w.send("x", turn_id="t")
    (await w.running()).answer("answer")
    await passes(1)
    assert turn_of(stream).ended
    await passes(301)
    assert isinstance(await fails(stream), ReaderTooSlow)
    assert w.retention.bytes == 0


@story()
async def test_streams_of_a_closed_session_may_read_to_the_end(w: World) -> None:
    """Closing forgets the turn, but whoever follows it still hears how it ended."""
    stream = await w.send("x", turn_id="t")
    joined = await w.sessions.attach(key("default"), "t", 0)
    actor = await w.running()
    closing = asyncio.create_task(w.sessions.close(key("default")))
    await until(lambda: actor.proofs)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    await closing
    assert w.retention.bytes == 0
    assert finished(await collect(stream)).outcome is Outcome.INTERRUPTED
    assert finished(await collect(joined)).outcome is Outcome.INTERRUPTED
    assert w.retention.bytes == 0


@story()
async def test_a_turn_that_never_began_is_not_held(w: World) -> None:
    """What was withdrawn counts for nothing."""
    async with await w.send("x"):
        pass
    await until(lambda: not w.sessions.running)
    assert w.retention.bytes == 0
    await passes(10)


@story()
async def test_the_files_of_a_prompt_are_not_held(w: World) -> None:
    """Once the prompt is written, the turn no longer has it."""
    stream = await w.send("x" * 1000)
    assert turn_of(stream).prompt.content
    (await w.running()).answer()
    assert not turn_of(stream).prompt.content
    await collect(stream)
