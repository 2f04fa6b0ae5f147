"""One thread that runs work in order. Knows nothing of what the work is."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

T = TypeVar("T")


class _Order(NamedTuple):
    work: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Any]"


class _Given(NamedTuple):
    riders: list[Callable[[], None]]
    order: _Order | None


class OneThread:
    """A thread that runs while this is entered.

    The way there and back takes half the time of an executor's, which makes a future of its own and
    chains it to the loop's (27 and 57 microseconds). Waking a thread is most of it: work that rides
    with other work needs no wake of its own.

    A `daemon` does not keep the process from ending, whatever its work waits for.
    """

    def __init__(self, name: str, *, daemon: bool = False) -> None:
        self._orders: SimpleQueue[_Given | None] = SimpleQueue()
        self._riders: list[Callable[[], None]] = []
        self._open = False
        self._given = 0  # counted by the loop
        self._done = 0  # counted by the thread
        self._thread = threading.Thread(target=self._run, name=name, daemon=daemon)

    def __enter__(self) -> Self:
        self._thread.start()
        self._open = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait until all work is done, unless the thread is a `daemon`."""
        self.set_out()
        self._open = False
        self._orders.put(None)
        if not self._thread.daemon:
            self._thread.join()

    def run(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Run work in the thread, and return the future of its result.

        Work that has not begun before the future is cancelled never will.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._give(_Order(work, loop, answer))
        return answer

    def ride(self, work: Callable[[], None]) -> bool:
        """Run `work`, which must not raise, in front of the next work.

        Return False, and do not run it, unless the thread is idle: it would have to wait.
        """
        if self._given != self._done or not self._open:
            return False
        self._riders.append(work)
        return True

    def set_out(self) -> bool:
        """Start the work that rides without waiting for more. Return False if there is none."""
        rides = bool(self._riders)
        if rides:
            self._give(None)
        return rides

    def _give(self, order: _Order | None) -> None:
        riders, self._riders = self._riders, []
        self._given += 1
        self._orders.put(_Given(riders, order))

    def _run(self) -> None:
        while (given := self._orders.get()) is not None:
            for rider in given.riders:
                rider()
            if given.order is not None and not given.order.answer.cancelled():
                self._do(given.order)
            else:
                self._done += 1
            # A reference kept until the next work comes would keep its objects alive.
            del given

    def _do(self, order: _Order) -> None:
        result, error = None, None
        try:
            result = order.work()
        except BaseException as raised:
            error = raised
        self._done += 1  # before the result is known
        # If the loop is closed, no caller waits any more.
        with contextlib.suppress(RuntimeError):
            order.loop.call_soon_threadsafe(_answer, order.answer, result, error)


def _answer(answer: "asyncio.Future[Any]", result: object, error: BaseException | None) -> None:
    if answer.done():
        return
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(result)
