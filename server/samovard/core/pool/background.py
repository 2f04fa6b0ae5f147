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
        self._group = asyncio.TaskGroup()
        self._work: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        late = asyncio.get_running_loop().call_later(EXIT_TIMEOUT, self.abandon)
        try:
            # Without any error: a group that knows of one cancels what ends processes.
            await self._group.__aexit__(None, None, None)
        finally:
            late.cancel()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run work beside what else there is; it outlives the call that asked for it."""
        task = self._group.create_task(guarded(work, name), name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        # Cancelled before its first step, the guard never got to what it guards.
        task.add_done_callback(lambda _: work.close())
        return task

    def abandon(self) -> None:
        """Cancel what is not over."""
        for task in self._work:
            task.cancel()


async def guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    """Keeps a defect in one piece of work from ending the scope that all share."""
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
