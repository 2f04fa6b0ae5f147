"""Background work that outlives the call that started it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Never, Self

import structlog

from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

EXIT_TIMEOUT = 20.0  # seconds; longer than stopping any process with signals takes

_log = structlog.get_logger("samovard.scope")


class BackgroundWork:
    """A set of background tasks.

    An async context manager: the task that entered it must leave it. Leaving waits for all work,
    and cancels work that is not done after 20 s. If leaving is cancelled, all work is cancelled
    and still waited for.
    """

    def __init__(self) -> None:
        self._work: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        late = asyncio.get_running_loop().call_later(EXIT_TIMEOUT, self.abandon)
        try:
            while self._work:  # again, because work may spawn more work
                await asyncio.wait(self._work)
        except asyncio.CancelledError:
            # No work may outlive this object, so it is cancelled and still waited for.
            self.abandon()
            while self._work:
                await asyncio.wait(self._work)
            raise
        finally:
            late.cancel()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Start work as a task of its own, which outlives the calling task."""
        # Not a task group: one task that raises would cancel all the others.
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._work.add(task)  # also the only strong reference: the event loop has a weak one
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("defect", work=task.get_name(), exc_info=error)

    def abandon(self) -> None:
        """Cancel all work that is not done."""
        for task in self._work:
            task.cancel()  # removes it from the set only in a later step


async def guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    """Await work, and log its exceptions instead of raising them."""
    try:
        await work
    except Exception:
        _log.exception("defect", work=name)


async def repeat(
    name: str,
    work: Callable[[], Awaitable[object]],
    pause: Callable[[], Awaitable[object]],
    recorder: Recorder,
) -> Never:
    """Repeat work with a pause after each round, until cancelled.

    A round that raises is counted and reported, and does not prevent the next one.
    """
    while True:
        try:
            await work()
        except Exception:
            incident(recorder, "loop.failed", loop=name, exc_info=True)
        await pause()
