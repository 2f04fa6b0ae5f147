"""Work that outlives the call that asked for it. Knows nothing of what the work is."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Never, Self

import structlog

from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

EXIT_TIMEOUT = 20.0  # longer than any ladder of signals

_log = structlog.get_logger("samovard.scope")


class BackgroundWork:
    """Holds work until it is over.

    An async context manager, left by the task that entered it: leaving waits for all work, and
    cancels what is not over after 20 s.
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
            while self._work:
                await asyncio.wait(self._work)
        except asyncio.CancelledError:
            # Nothing may outlive it: the work is told to end, and is waited for all the same.
            self.abandon()
            while self._work:
                await asyncio.wait(self._work)
            raise
        finally:
            late.cancel()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run work beside what else there is; it outlives the call that asked for it."""
        # No task group: one piece of work that meets a defect would end all others with it.
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._work.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("defect", work=task.get_name(), exc_info=error)

    def abandon(self) -> None:
        """Cancel what is not over."""
        for task in self._work:
            task.cancel()


async def guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    """Do work whose defects must not keep its caller from going on."""
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
    """Run rounds of work with a pause behind each, until cancelled.

    A round that raises is counted and reported; the next one runs all the same.
    """
    while True:
        try:
            await work()
        except Exception:
            incident(recorder, "loop.failed", loop=name, exc_info=True)
        await pause()
