"""Sessions whose time is over: which are closed, which are not, and by which clock."""

import asyncio
from dataclasses import replace

from support.core_runner import story
from support.noted import Noted
from support.world import World, passes
from telemetry.test_incidents import told

from samovard.core.errors import NoProcess
from samovard.core.records import SessionKey
from samovard.core.sessions.conversation import Clocks, SessionRules
from samovard.core.sessions.expiry import AT_ONCE
from samovard.core.sessions.trusted_clock import HOLD, TOLERANCE, TrustedClock

DAY = 24 * 3600.0
HOUR = SessionRules(session_ttl=3600.0)
MONTH = SessionRules(session_ttl=30 * DAY)
KEY = SessionKey("acme", "default")


async def rounds(w: World, seconds: float) -> int:
    """Close what expires in so much time, looking every five minutes. Return how many."""
    closed = 0
    for _ in range(int(seconds // 300)):
        await passes(300)
        closed += await w.sessions.close_expired()
    return closed


@story(profile=HOUR)
async def test_a_session_that_cannot_be_closed_does_not_keep_the_others(w: World) -> None:
    """It is reported with its name, the others are closed, and the next round has it again."""
    for name in ("a", "b", "c"):
        await w.turn(session=name)
    await passes(3700)
    w.stage.removal_errors = [OSError(5, "Input/output error")]
    assert await w.sessions.close_expired() == 2
    assert [key.session for key in w.shelf.sessions] == ["a"]
    line = told(w, "session.not_expired")
    assert (line["tenant"], line["session"]) == ("acme", "a")
    assert await w.sessions.close_expired() == 1


@story(profile=HOUR)
async def test_many_that_cannot_be_closed_are_paged_past(w: World) -> None:
    """However many come first in the store, the one behind them is closed."""
    await w.turn(session="z")
    record = w.shelf.sessions[SessionKey("acme", "z")]
    broken = AT_ONCE + 50
    for number in range(broken):
        key = SessionKey("acme", f"s{number:03}")
        w.shelf.sessions[key] = replace(record, key=key, home=f"home{number}")
    await passes(3700)
    w.stage.removal_errors = [OSError(5, "Input/output error")] * broken
    assert await w.sessions.close_expired() == 1
    assert w.noted.incidents["session.not_expired"] == broken
    assert SessionKey("acme", "z") not in w.shelf.sessions


@story(profile=HOUR)
async def test_a_round_that_the_store_refuses_raises(w: World) -> None:
    """The store is everybody's, so that there is no session to go past."""
    w.shelf.down = True
    try:
        await w.sessions.close_expired()
    except NoProcess as error:
        assert error.cause == "store-down"
    else:
        raise AssertionError("the round did not raise")
    w.shelf.down = False


@story(profile=MONTH)
async def test_a_clock_that_steps_forward_ends_no_session(w: World) -> None:
    """It is told once, and a clock that is put right within a day has changed nothing."""
    await w.turn()
    await w.sessions.close_expired()
    w.wall.shift = 40 * DAY + 0.1234
    assert await rounds(w, 0.9 * DAY) == 0
    assert told(w, "clock.jumped")["seconds"] == 40 * DAY + 0.123
    w.wall.shift = 0.0
    assert await rounds(w, 0.05 * DAY) == 0
    assert w.noted.incidents["clock.jumped"] == 2
    assert KEY in w.shelf.sessions


@story(profile=MONTH)
async def test_a_clock_that_stays_where_it_was_set_is_believed(w: World) -> None:
    """A machine that finds the time late expires by it, a day later."""
    await w.turn()
    assert await rounds(w, 2 * DAY) == 0
    w.wall.shift = 40 * DAY
    assert await rounds(w, DAY - 600) == 0
    assert await rounds(w, 1200) == 1
    assert w.noted.incidents["clock.jumped"] == 1


@story(profile=HOUR)
async def test_while_a_step_is_not_believed_sessions_expire_by_the_old_time(w: World) -> None:
    """Expiry goes on beside a clock that is wrong."""
    await w.turn()
    await passes(1800)
    w.wall.shift = 0.5 * DAY
    assert await rounds(w, 1500) == 0
    assert await rounds(w, 600) == 1


@story(profile=HOUR)
async def test_a_clock_that_steps_back_ends_no_session_early(w: World) -> None:
    """A session that is used behind the step lives as long as any other."""
    await w.sessions.close_expired()
    w.wall.shift = -DAY
    await w.turn()
    assert await rounds(w, 3300) == 0
    assert await rounds(w, 600) == 1
    assert told(w, "clock.jumped")["seconds"] < 0


@story(profile=HOUR)
async def test_a_clock_that_drifts_is_followed(w: World) -> None:
    """A clock that is slewed by more than the bound in the end has not stepped."""
    for _ in range(10):
        w.wall.shift += 200
        assert await rounds(w, 300) == 0
    await w.turn()
    assert await rounds(w, 3300) == 0
    assert await rounds(w, 600) == 1
    assert not w.noted.incidents["clock.jumped"]


async def closing_the_first(w: World) -> asyncio.Task[int]:
    """Expire sessions `a` and `b`, and return while `a` is being closed."""
    for name in ("a", "b"):
        await w.turn(session=name)
    await passes(3700)
    w.stage.removal_time = 5.0
    expiring = asyncio.create_task(w.sessions.close_expired())
    await passes(1)
    assert not expiring.done()
    w.stage.removal_time = 0.0
    return expiring


@story(profile=HOUR)
async def test_a_session_that_is_used_while_another_is_closed_lives_on(w: World) -> None:
    """What the store said of its time counts no longer."""
    expiring = await closing_the_first(w)
    await w.turn(session="b")
    assert await expiring == 1
    assert [key.session for key in w.shelf.sessions] == ["b"]


@story(profile=HOUR)
async def test_a_session_that_is_closed_while_another_is_closed_is_no_failure(w: World) -> None:
    """It is not counted, and nothing is reported."""
    expiring = await closing_the_first(w)
    assert await w.sessions.close(SessionKey("acme", "b"))
    assert await expiring == 1
    assert not w.noted.incidents["session.not_expired"]


def test_a_step_is_more_than_the_tolerance_and_counts_once_it_has_lasted() -> None:
    """Both to the second: of just the tolerance it is none, and after just a day it counts."""
    noted, wall, monotonic = Noted(), 5000.0, 0.0
    clock = TrustedClock(Clocks(lambda: wall, lambda: monotonic), noted)
    wall += TOLERANCE
    assert (clock.now(), noted.incidents["clock.jumped"]) == (wall, 0)
    wall += TOLERANCE + 1
    assert (clock.now(), noted.incidents["clock.jumped"]) == (wall - TOLERANCE - 1, 1)
    wall, monotonic = wall + HOLD, monotonic + HOLD
    assert clock.now() == wall
