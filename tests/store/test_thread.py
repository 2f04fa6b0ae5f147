"""The store's thread: what is asked of it, in order."""

import asyncio
import threading
from functools import partial

import pytest
from support.service import until
from support.timeouts import BOUND

from samovard.store.thread import OneThread


def test_what_is_asked_is_done_in_order() -> None:
    """One thing after the other, in the order of asking, off the loop's thread."""
    done: list[tuple[int, bool]] = []

    def work(number: int) -> int:
        done.append((number, threading.current_thread() is threading.main_thread()))
        return number

    async def story() -> list[int]:
        with OneThread("x") as thread:
            return await asyncio.gather(*(thread.run(partial(work, n)) for n in range(5)))

    assert asyncio.run(story()) == [0, 1, 2, 3, 4]
    assert done == [(number, False) for number in range(5)]


def test_what_fails_fails_for_its_caller_alone() -> None:
    """An error is raised where it was asked for; the thread goes on."""

    async def story() -> None:
        with OneThread("x") as thread:
            with pytest.raises(ZeroDivisionError):
                await thread.run(lambda: 1 / 0)
            assert await thread.run(lambda: 7) == 7

    asyncio.run(story())


def test_what_was_cancelled_before_it_began_is_not_done() -> None:
    """A caller who left has nothing done for him, unless it was under way."""
    done: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        leave.wait(BOUND)
        done.append("under way")

    async def story() -> None:
        with OneThread("x") as thread:
            first = asyncio.ensure_future(thread.run(slow))
            second = asyncio.ensure_future(thread.run(lambda: done.append("cancelled")))
            await asyncio.to_thread(entered.wait, 10.0)
            for waiting in (first, second):
                waiting.cancel()
            leave.set()
            await asyncio.wait({first, second})

    asyncio.run(story())
    assert done == ["under way"]


def test_a_loop_that_is_gone_does_not_end_the_thread() -> None:
    """What is done after its loop was closed is told nobody."""
    leave = threading.Event()
    thread = OneThread("x")
    thread.__enter__()

    async def story() -> None:
        waiting = asyncio.ensure_future(thread.run(lambda: leave.wait(BOUND)))
        await asyncio.sleep(0)
        waiting.cancel()

    asyncio.run(story())
    leave.set()

    async def after() -> int:
        return await thread.run(lambda: 7)

    assert asyncio.run(after()) == 7
    thread.__exit__(None, None, None)


def test_a_daemon_holds_nobody_up() -> None:
    """Neither the loop nor the end; its work is done all the same, if it ends."""
    entered, leave = threading.Event(), threading.Event()

    def slow() -> int:
        entered.set()
        leave.wait(BOUND)
        return 7

    async def story() -> None:
        with OneThread("x", daemon=True) as thread:
            asked = thread.run(slow)
            await asyncio.to_thread(entered.wait, BOUND)
            (own,) = (each for each in threading.enumerate() if each.name == "x")
            assert own.daemon
        assert not asked.done()
        leave.set()
        assert await asked == 7

    asyncio.run(story())


def test_what_rides_is_done_with_what_is_asked_for_next() -> None:
    """Before it, and not until then; also if that was cancelled."""
    done: list[str] = []

    async def story() -> None:
        with OneThread("x") as thread:
            await thread.run(lambda: done.append("one"))
            assert thread.ride(lambda: done.append("rides"))
            await thread.run(lambda: done.append("two"))
            assert thread.ride(lambda: done.append("rides again"))
            left = asyncio.ensure_future(thread.run(lambda: done.append("never")))
            await asyncio.sleep(0)
            left.cancel()
            await thread.run(lambda: done.append("three"))

    asyncio.run(story())
    assert done[:3] == ["one", "rides", "two"]
    assert [what for what in done[3:] if what != "never"] == ["rides again", "three"]


def test_what_rides_sets_out_by_itself_when_it_must() -> None:
    """Told to, and at the end."""
    done: list[str] = []
    with OneThread("x") as thread:
        assert not thread.set_out()
        assert thread.ride(lambda: done.append("told"))
        assert thread.set_out()
        assert not thread.set_out()
        asyncio.run(until(lambda: thread.ride(lambda: done.append("at the end"))))
    assert done == ["told", "at the end"]


def test_nothing_rides_but_with_a_thread_that_runs_and_is_idle() -> None:
    """Not before it runs, not behind other work, and not after its end."""
    rode: list[str] = []
    entered, leave = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        leave.wait(BOUND)

    async def story() -> None:
        thread = OneThread("x")
        assert not thread.ride(lambda: rode.append("before"))
        with thread:
            first = asyncio.ensure_future(thread.run(slow))
            await asyncio.to_thread(entered.wait, BOUND)
            assert not thread.ride(lambda: rode.append("behind"))
            leave.set()
            await first
            await until(lambda: thread.ride(lambda: rode.append("idle")))
        assert not thread.ride(lambda: rode.append("after"))

    asyncio.run(story())
    assert rode == ["idle"]
