"""Readers that are too slow, on a clock that jumps: who waits, who is dropped, what is kept."""

import asyncio

import pytest
from support.core_runner import collect, fails, finished, started, story
from support.world import World, passes, text_of, turn_of

from samovard.core.errors import EventsExpired, ReaderTooSlow
from samovard.core.events import Outcome, StartMode
from samovard.core.records import SessionKey
from samovard.core.turn.follower import Follower
from samovard.core.turn.replay import Stream
from samovard.core.turn.turn import Disconnect, StreamBounds

KEY = SessionKey("acme", "default")
CONTINUE = Disconnect.CONTINUE
NARROW = StreamBounds(hold=1 << 20, unread=1000, slow=10.0)


async def numbers(stream: Stream) -> list[int]:
    told: list[int] = []
    async with stream:
        async for batches in stream:
            told += [number for b in batches for number in range(b.sequence, b.last + 1)]
    return told


async def attached(w: World, after: int = 0) -> Follower:
    stream = await w.sessions.attach(KEY, "t", after)
    assert isinstance(stream, Follower)
    return stream


@story(bounds=NARROW)
async def test_a_slow_reader_stops_the_agent_and_is_then_dropped(w: World) -> None:
    """A reader at its bound makes the agent wait, for a while; then its stream is lost."""
    stream = await w.send("x")
    actor = await w.running()
    actor.say("x" * 1500)
    assert actor.paused
    await passes(11)
    error = await fails(stream)
    assert isinstance(error, ReaderTooSlow)
    assert not actor.paused
    assert actor.proofs
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)


@story(bounds=NARROW)
async def test_a_reader_who_catches_up_lets_the_agent_go_on(w: World) -> None:
    """Reading again lifts the bound."""
    stream = await w.send("x")
    actor = await w.running()
    actor.say("x" * 1500)
    assert actor.paused
    await anext(aiter(stream))
    assert not actor.paused
    actor.answer()
    await collect(stream)


@story(bounds=NARROW)
async def test_a_dropped_reader_may_come_again(w: World) -> None:
    """With CONTINUE the turn goes on, and `Attach` after what was read misses nothing."""
    stream = await w.send("x", turn_id="t", on_disconnect=CONTINUE)
    actor = await w.running()
    await anext(stream)
    actor.say("a" * 600)
    actor.say("b" * 600)
    await passes(11)
    error = await fails(stream)
    assert isinstance(error, ReaderTooSlow)
    assert not actor.proofs
    assert error.metadata == {"turnId": "t", "lastSequence": "1"}
    joined = await attached(w, int(error.metadata["lastSequence"]))
    actor.answer("c")
    assert text_of(await collect(joined)) == "a" * 600 + "b" * 600 + "c"


@story(bounds=NARROW)
async def test_an_attach_stream_never_stops_the_reader(w: World) -> None:
    """At its bound it is dropped after the same time; agent and `Send` do not feel it."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    joined = await attached(w)
    for _ in range(5):
        actor.say("x" * 600)
        await anext(stream)
        assert not actor.paused
    assert joined.unread > NARROW.unread
    await passes(9)
    assert turn_of(joined).followed
    await passes(2)
    assert isinstance(await fails(joined), ReaderTooSlow)
    actor.answer()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED


@story(bounds=StreamBounds(hold=8 << 20, unread=1000, slow=10.0))
async def test_a_replay_that_is_read_steadily_is_not_dropped(w: World) -> None:
    """Who takes something in time is not too slow, however much there is to take."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    await anext(stream)
    for _ in range(5):
        actor.say("x" * (1 << 20))
        await anext(stream)
    actor.finish("x")
    actor.listener.on_quiet()
    await collect(stream)
    joined, takings = await attached(w, 1), 0
    async for _ in joined:
        takings += 1
        await passes(9)
    assert takings == 6


@story(bounds=StreamBounds(hold=1000, unread=1 << 20, slow=10.0))
async def test_an_attach_stream_that_is_overtaken_is_dropped(w: World) -> None:
    """When what it would read next is no longer held, it is too slow: no event is skipped."""
    stream = await w.send("x", turn_id="t", on_disconnect=CONTINUE)
    actor = await w.running()
    joined = await attached(w)
    await anext(joined)
    for _ in range(5):
        actor.say("x" * 600)
        await anext(stream)
    error = await fails(joined)
    assert isinstance(error, ReaderTooSlow)
    assert error.metadata["lastSequence"] == "1"
    actor.answer()
    await collect(stream)


@story(bounds=StreamBounds(hold=1000))
async def test_old_events_are_dropped_and_said_to_be(w: World) -> None:
    """Who wants an event that is no longer held is told so, and changes nothing by it."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    async for _ in stream:
        if stream.sequence > 5:
            break
        actor.say("x" * 600)
    with pytest.raises(EventsExpired):
        await attached(w)
    with pytest.raises(EventsExpired):
        await w.send("x", turn_id="t")
    actor.say("y" * 600)
    assert not actor.proofs
    actor.answer()
    assert text_of(await collect(stream)) == "y" * 600 + "done"


@story(bounds=StreamBounds(hold=1_000))
async def test_what_was_read_is_dropped_at_once(w: World) -> None:
    """Not with the next event, for which an agent may take its time."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    await anext(stream)
    for _ in range(4):
        actor.say("x" * 600)
    assert turn_of(stream).held_bytes >= 2_400
    while stream.unread:
        await anext(stream)
    assert turn_of(stream).held_bytes <= 1_000
    actor.answer()
    await collect(stream)


@story(bounds=StreamBounds(hold=10_000, unread=5_000))
async def test_a_turn_holds_no_more_than_its_bounds(w: World) -> None:
    """Unread by nobody it holds its newest events; by its reader at most one read more."""
    async with await w.send("x", turn_id="t", on_disconnect=CONTINUE) as stream:
        actor = await w.running()
        turn = turn_of(stream)
        while not actor.paused:
            actor.say("x" * 900)
        assert turn.held_bytes <= 5_000 + 900
    assert not actor.paused
    for _ in range(1000):
        actor.say("x" * 900)
        assert turn.held_bytes <= 10_000
    actor.answer()


@story(bounds=NARROW)
async def test_an_interrupt_does_not_wait_for_a_slow_reader(w: World) -> None:
    """The agent is read on, or it could not answer; deltas that do not fit are dropped, the
    report is not, and there is no gap in the numbers."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    actor.say("x" * 1500)
    assert actor.paused
    assert await w.sessions.interrupt(KEY, "t")
    assert not actor.paused
    for _ in range(100):
        actor.say("y" * 1000)
    assert not actor.paused
    assert stream.turn.held_bytes < 2000
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    await passes(1)
    joined = await attached(w)
    events = await collect(stream)
    assert text_of(events) == "x" * 1500
    assert finished(events).outcome is Outcome.INTERRUPTED
    assert await numbers(joined) == [1, 2, 3]
    assert started(await w.turn("next")).start_mode is StartMode.WARM


@story(bounds=NARROW)
async def test_the_last_send_stream_is_the_one_that_counts(w: World) -> None:
    """A second `Send` that does not read stops the agent; one before it no longer does."""
    older = await w.send("x", turn_id="t")
    actor = await w.running()
    last = await w.send("x", turn_id="t")
    actor.say("x" * 1500)
    assert actor.paused
    await anext(older)
    assert actor.paused
    await anext(last)
    assert not actor.paused
    actor.say("y" * 1500)
    await anext(last)
    await passes(11)
    assert isinstance(await fails(older), ReaderTooSlow)
    assert not actor.proofs
    actor.answer()
    await collect(last)


@story(bounds=NARROW)
async def test_nobody_else_feels_a_slow_reader(w: World) -> None:
    """While one session's agent waits for its reader, another session's turn runs as ever."""
    stream = await w.send("x", session="slow")
    slow = await w.running()
    slow.say("x" * 1500)
    assert slow.paused
    begin = asyncio.get_running_loop().time()
    assert text_of(await w.turn("quick", session="quick")) == "quick"
    assert asyncio.get_running_loop().time() - begin < 1.0
    await anext(stream)
    slow.answer()
    await collect(stream)


@story(bounds=NARROW)
async def test_a_reader_at_its_bound_does_not_cost_the_process(w: World) -> None:
    """The end of a turn is read although its reader is behind; the next turn is warm."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    actor.say("x" * 1500)
    actor.finish("x")  # was in the same read
    await passes(0.1)
    assert not actor.paused
    actor.listener.on_quiet()
    assert text_of(await collect(stream)) == "x" * 1500
    assert started(await w.turn("next")).start_mode is StartMode.WARM
