"""Sessions whose processes keep ending by themselves: refused for a while, and no others."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from support.core_runner import fails, started, story
from support.world import World, passes, text_of

from samovard.core.errors import NoProcess, TurnLost
from samovard.core.events import StartMode
from samovard.core.pool import circuit_breaker
from samovard.core.pool.circuit_breaker import CircuitBreakers
from samovard.core.records import SessionKey

KEY = SessionKey("acme", "default")
Trace = Callable[[FrameType, str, Any], Any]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_ends_that_are_far_apart_open_nothing() -> None:
    """Three in a minute do; two, or three in a longer time, do not."""
    clock = Clock()
    quick, slow = CircuitBreakers(clock), CircuitBreakers(clock)
    assert [quick.ended("a", 1.0), quick.ended("a", 1.0), slow.ended("a", 1.0)] == [0, 0, 0]
    clock.now += 59
    assert [quick.ended("b", 1.0), slow.ended("a", 1.0)] == [0, 0]
    assert quick.ended("a", 1.0) == circuit_breaker.SHORTEST
    clock.now += 2
    assert slow.ended("a", 1.0) == 0
    assert repr(quick) == "<CircuitBreakers open=1 of 2>"


def test_it_is_refused_for_twice_as_long_each_time() -> None:
    """30 s, 60 s and so on up to ten minutes: after the first time each end counts."""
    clock = Clock()
    made = CircuitBreakers(clock)
    told = [made.ended("a", 1.0), made.ended("a", 1.0)]
    for _ in range(7):
        told.append(made.ended("a", 1.0))
        refusal = made.refusal("a")
        assert refusal is not None
        assert refusal.retry_after == told[-1]
        clock.now += told[-1]
        assert made.refusal("a") is None
    assert told == [0, 0, 30, 60, 120, 240, 480, 600, 600]


def test_a_process_that_stayed_up_begins_anew() -> None:
    """Its end counts for nothing, and what came before it is forgotten."""
    made = CircuitBreakers(Clock())
    for up in (1.0, 1.0, 10.0, 1.0, 1.0):
        assert made.ended("a", up) == 0
    assert made.ended("a", 1.0) == 30


def test_old_ends_are_forgotten() -> None:
    """What is known of sessions that get on does not pile up."""
    clock = Clock()
    made = CircuitBreakers(clock)
    for number in range(100):
        made.ended(str(number), 1.0)
        clock.now += 61
    assert repr(made) == "<CircuitBreakers open=0 of 1>"


def test_what_is_not_old_is_kept_when_old_ends_are_forgotten() -> None:
    """The ends of one session are counted whenever those of another are dropped."""
    clock = Clock()
    made = CircuitBreakers(clock)
    made.ended("a", 1.0)
    clock.now += 59
    assert [made.ended("b", 1.0), made.ended("b", 1.0)] == [0, 0]
    clock.now += 2
    assert made.ended("b", 1.0) == circuit_breaker.SHORTEST


def test_an_opened_breaker_is_forgotten_too() -> None:
    """It counts for a while behind its last end, and is dropped when any other process ends."""
    clock = Clock()
    made = CircuitBreakers(clock)
    assert [made.ended("a", 1.0) for _ in range(3)] == [0, 0, 30]
    clock.now += circuit_breaker.REMEMBERED
    made.ended("b", 1.0)
    assert repr(made) == "<CircuitBreakers open=0 of 2>"
    clock.now += 1
    made.ended("b", 1.0)
    assert repr(made) == "<CircuitBreakers open=0 of 1>"


def steps_of(work: Callable[[], object]) -> int:
    """Count the lines of `breakers` that some work runs, in whatever time."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Trace:
        nonlocal count
        # The garbage collector may run lines of others meanwhile.
        count += event == "line" and frame.f_code.co_filename == circuit_breaker.__file__
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("ends", [1, 3])  # those that only count, and those that are open
def test_an_end_costs_the_same_however_many_are_known(ends: int) -> None:
    """A crowd of sessions whose processes end does not make each further end dearer."""
    made = CircuitBreakers(Clock())
    few = steps_of(lambda: made.ended("first", 1.0))
    for number in range(1000):
        for _ in range(ends):
            made.ended(str(number), 1.0)
    assert steps_of(lambda: made.ended("last", 1.0)) == few


async def dies(w: World, times: int) -> None:
    """Runs so many turns in whose middle the process dies."""
    for _ in range(times):
        stream = await w.send("x")
        (await w.running(actors=len(w.stage.created) + 1)).die()
        assert isinstance(await fails(stream), TurnLost)


@story()
async def test_a_crash_loop_is_refused_for_a_while(w: World) -> None:
    """After three deaths nothing is started for the session, which is told until when; other
    sessions are served, and so is this one once the time is over."""
    await dies(w, 3)
    refused = await fails(await w.send("y"))
    assert isinstance(refused, NoProcess)
    assert (refused.cause, refused.prompt_written) == ("crash-loop", False)
    assert refused.retry_after == pytest.approx(30, abs=1)
    assert text_of(await w.turn("z", session="other")) == "z"
    assert len(w.stage.created) == 4
    await passes(30)
    assert started(await w.turn("on")).start_mode is StartMode.RESUMED


@story(slots=1)
async def test_nothing_is_evicted_for_a_session_that_may_not_start(w: World) -> None:
    """A turn that is refused for its crash loop leaves another session's process warm."""
    await dies(w, 3)
    await w.turn("x", session="other")
    assert (await fails(await w.send("y"))).cause == "crash-loop"
    assert started(await w.turn("z", session="other")).start_mode is StartMode.WARM


@story()
async def test_starts_that_end_at_once_are_a_crash_loop_too(w: World) -> None:
    """A failed start whose process ended by itself counts, one that we stopped does not."""
    await w.turn("x")
    w.stage.last.die()
    for count in (2, 3):
        stream = await w.send("y")
        while len(w.stage.starts) < count:
            await passes(0.01)
        w.stage.last.die()
        w.stage.start_errors = [NoProcess("gone", cause="start-failed", retry_after=1.0)]
        assert (await fails(stream)).cause == "start-failed"
    assert (await fails(await w.send("z"))).cause == "crash-loop"


@story()
async def test_a_session_that_was_closed_begins_anew(w: World) -> None:
    """Its name has no breaker any more."""
    await dies(w, 3)
    assert await w.sessions.close(KEY)
    assert started(await w.turn("new")).start_mode is StartMode.COLD


@story()
async def test_what_works_unasked_is_not_lent_when_its_lease_comes_back(w: World) -> None:
    """A lease that was not used, of a process that began to work by itself meanwhile: it is
    idle again when it says so, and not before."""
    await w.turn("x")
    w.shelf.slow = 1.0
    stream = await w.send("y")
    process = w.pool.process_of(KEY)
    assert process is not None
    while process.state.value != "leased":
        await passes(0.01)
    process.on_unsolicited(1)
    stream.leave()
    while process.state.value == "leased":
        await passes(0.01)
    assert repr(w.pool) == "<Pool RUNNING waiting=0 settling=1>"
    process.on_quiet()
    assert repr(w.pool) == "<Pool RUNNING waiting=0 idle=1>"
