"""What the store could not take in time: owed, and paid before anything else of its session."""

import asyncio

import pytest
from support.core_runner import collect, fails, finished, started, story
from support.world import Actor, World, passes, text_of, until

from samovard.core.errors import (
    EventsExpired,
    IdTaken,
    NoProcess,
    SessionNotFound,
    TurnLost,
    TurnNotFound,
)
from samovard.core.events import Event, StartMode
from samovard.core.process import Broken
from samovard.core.records import SessionKey
from samovard.core.turn.follower import Follower

KEY = SessionKey("acme", "default")


async def answered_in_vain(w: World, turn_id: str) -> tuple[Follower, Actor]:
    """Runs a turn whose outcome the store does not take: it is told after ten seconds."""
    stream = await w.send("one", turn_id=turn_id)
    actor = await w.running()
    w.shelf.down = True
    actor.answer("one")
    return stream, actor


async def attached(w: World, turn_id: str, after: int) -> list[Event]:
    return await collect(await w.sessions.attach(KEY, turn_id, after))


@story()
async def test_an_outcome_that_the_store_takes_late_is_not_lost(w: World) -> None:
    """The caller hears TURN_LOST (store-down); whoever looks once the store is back finds
    how the turn ended, though no other turn came."""
    stream, _ = await answered_in_vain(w, "t")
    lost = await fails(stream)
    assert isinstance(lost, TurnLost)
    assert (lost.cause, lost.metadata["turnId"]) == ("store-down", "t")
    await passes(301)
    w.shelf.down = False
    await passes(3)
    stored = w.shelf.turns[KEY, "t"]
    assert (stored.state, w.shelf.sessions[KEY].turn_count) == ("finished", 1)
    assert finished(await attached(w, "t", stored.last_sequence - 1)).result == "one"
    assert isinstance(await fails(await w.send("one", turn_id="t")), EventsExpired)


@story()
async def test_what_is_owed_is_paid_before_the_next_turn(w: World) -> None:
    """While the store does not take the last outcome, no turn of its session begins; others
    wait for nothing of it."""
    stream, actor = await answered_in_vain(w, "t")
    await fails(stream)
    refused = await fails(await w.send("two"))
    assert (type(refused), refused.cause) == (NoProcess, "store-down")
    assert len(actor.prompts) == 1
    w.shelf.down = False
    assert text_of(await w.turn("three", turn_id="u")) == "three"
    assert [w.shelf.turns[KEY, name].state for name in "tu"] == ["finished", "finished"]
    # What came first is not written over what came later.
    assert w.shelf.turns[KEY, "t"].report is None
    assert w.shelf.sessions[KEY].turn_count == 2


@story()
async def test_a_turn_that_could_not_be_withdrawn_leaves_no_trace(w: World) -> None:
    """Its prompt was not written, and its record is undone late: it may be repeated."""
    w.shelf.slow, w.stage.deaf_writes = 0.1, 1
    stream = await w.send("one", turn_id="t")
    await died(w)
    w.shelf.down = True  # before the record is undone
    refused = await fails(stream)
    assert isinstance(refused, NoProcess)
    assert not refused.prompt_written
    assert w.noted.incidents["store.owed"] == 1
    w.shelf.down = False
    with pytest.raises(SessionNotFound):
        await attached(w, "t", 0)
    assert (KEY, "t") not in w.shelf.turns
    again = await w.turn("one", turn_id="t")
    assert started(again).start_mode is StartMode.COLD
    assert text_of(again) == "one"


async def died(w: World) -> None:
    """Waits until the only process is dead."""
    async with asyncio.timeout(60):
        while not w.stage.created or w.stage.last.alive:
            await asyncio.sleep(0.01)


@story()
async def test_a_session_that_is_closed_owes_nothing(w: World) -> None:
    """What was to be written of it is not written into the next one of its name."""
    stream, _ = await answered_in_vain(w, "t")
    await fails(stream)
    await passes(0.5)
    w.shelf.down = False
    assert await w.sessions.close(KEY)
    await passes(10)
    assert w.shelf.turns == {}
    assert w.shelf.sessions == {}


@story()
async def test_a_service_that_leaves_waits_for_no_store(w: World) -> None:
    """What the store does not take when it is asked for the last time is given up."""
    stream, _ = await answered_in_vain(w, "t")
    await fails(stream)
    w.sessions.refuse_new()
    begin = asyncio.get_running_loop().time()
    await until(lambda: not w.pool.waiting)
    async with asyncio.timeout(10):
        await w.background.__aexit__(None, None, None)
    assert asyncio.get_running_loop().time() - begin < 5


@story()
async def test_who_sends_what_a_turn_never_was_spoils_nothing_for_others(w: World) -> None:
    """Beside a `Send` of other content that is being refused, one of the turn's own is told
    what it would be told without it."""
    await w.turn("one", turn_id="t")
    await passes(301)
    w.shelf.slow = 1.0
    wrong = await w.send("two", turn_id="t")
    with pytest.raises(EventsExpired):
        await w.send("one", turn_id="t")
    assert isinstance(await fails(wrong), IdTaken)


@story()
async def test_a_block_that_the_store_takes_late_holds(w: World) -> None:
    """A session whose agent told of another one is blocked in the store, too, once it is back."""
    stream = await w.send("one")
    actor = await w.running()
    w.shelf.down = True
    actor.listener.on_broken(Broken.FOREIGN)
    await passes(5)
    w.shelf.down = False
    await fails(stream)
    await passes(5)
    assert w.shelf.sessions[KEY].blocked


async def undone_late(w: World) -> None:
    """Leaves a turn that was recorded and never begun, whose record is still to be undone."""
    w.shelf.slow, w.stage.deaf_writes = 0.1, 1
    stream = await w.send("one", turn_id="t")
    await died(w)
    w.shelf.down = True
    await fails(stream)
    await passes(0.2)  # and to be tried again in two seconds
    w.shelf.down = False


@story()
async def test_what_is_paid_is_paid_once(w: World) -> None:
    """A slow payment of one does not undo what another has written behind a quick one."""
    await undone_late(w)
    w.shelf.slow = 1.0
    looking = asyncio.create_task(w.sessions.attach(KEY, "t", 0))
    await until(lambda: w.shelf.calls)
    w.shelf.slow = 0.001
    assert text_of(await w.turn("one", turn_id="t")) == "one"
    with pytest.raises(TurnNotFound):
        await looking
    assert w.shelf.turns[KEY, "t"].state == "finished"


@story()
async def test_a_payment_that_is_under_way_is_over_before_the_session_is_deleted(w: World) -> None:
    """What was written late does not bring back a session that was closed."""
    stream, _ = await answered_in_vain(w, "t")
    await fails(stream)
    await passes(0.5)
    w.shelf.down, w.shelf.slow = False, 1.0
    await until_called(w)
    w.shelf.slow = 0.001
    assert await w.sessions.close(KEY)
    await passes(5)
    assert (w.shelf.sessions, w.shelf.turns) == ({}, {})


async def until_called(w: World) -> None:
    """Waits until the store is asked for something."""
    async with asyncio.timeout(60):
        while not w.shelf.calls:
            await asyncio.sleep(0.01)


@story()
async def test_who_stops_paying_refuses_nobody(w: World) -> None:
    """A caller who leaves in the middle of a payment is no store that is down."""
    await undone_late(w)
    w.shelf.slow = 1.0
    looking = asyncio.create_task(w.sessions.attach(KEY, "t", 0))
    await until(lambda: w.shelf.calls)
    sending = asyncio.create_task(w.send("two"))
    await passes(0.5)
    looking.cancel()
    await asyncio.wait({looking})
    w.shelf.slow = 0.001
    stream = await sending
    (await w.running(actors=2)).answer("two")
    assert text_of(await collect(stream)) == "two"


async def failed_once(w: World) -> None:
    """Ends a turn whose outcome the store refuses at first, and takes when asked again."""
    await w.send("one", turn_id="t")
    actor = await w.running()
    w.shelf.down = True
    actor.answer("one")
    await until(lambda: w.shelf.calls)
    while w.shelf.calls:
        await passes(0.001)
    w.shelf.down = False


@story()
async def test_an_outcome_that_is_stored_late_is_not_written_over_a_later_one(w: World) -> None:
    """A turn that runs between two attempts to store the last outcome waits for that outcome."""
    await failed_once(w)
    assert text_of(await w.turn("two", turn_id="u")) == "two"
    await passes(20)
    assert w.shelf.sessions[KEY].turn_count == 2
    assert [w.shelf.turns[KEY, name].state for name in "tu"] == ["finished", "finished"]
    report = w.shelf.turns[KEY, "u"].report
    assert report is not None
    assert report.result == "two"


@story()
async def test_no_turn_is_recorded_beside_an_outcome_that_is_being_stored(w: World) -> None:
    """The record of the next turn is not made before it is known whether the outcome is."""
    await w.send("one", turn_id="t")
    actor = await w.running()
    w.shelf.slow = 1.0
    actor.answer("one")
    await until(lambda: w.shelf.calls)
    w.shelf.slow = 0.001
    sending = asyncio.create_task(w.send("two", turn_id="u"))
    await passes(0.5)
    assert (KEY, "u") not in w.shelf.turns
    w.shelf.down = True
    await passes(0.6)
    w.shelf.down = False
    with pytest.raises(NoProcess):
        await sending
    await passes(5)
    assert w.shelf.turns[KEY, "t"].state == "finished"


@story()
async def test_an_outcome_that_the_store_takes_soon_is_told_as_usual(w: World) -> None:
    """A failure that is over within ten seconds costs the caller nothing but the time."""
    stream = await w.send("one", turn_id="t")
    actor = await w.running()
    w.shelf.down = True
    actor.answer("one")
    await passes(8)
    assert w.noted.incidents["store.owed"] == 1
    w.shelf.down = False
    assert finished(await collect(stream)).result == "one"


@story()
async def test_a_session_that_is_blocked_between_two_turns_is_blocked_in_the_store(
    w: World,
) -> None:
    """No turn writes it then."""
    await w.turn("one")
    w.stage.last.listener.on_broken(Broken.FOREIGN)
    await passes(1)
    assert w.shelf.sessions[KEY].blocked
