"""Work that outlives the call that asked for it. Knows nothing of what the work is."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Never

import structlog

from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

EXIT_TIMEOUT = 20.0  # longer than any ladder of signals

_log = structlog.get_logger("samovard.scope")


class BackgroundWork:
    """Holds work until it is over. Leaving waits for all of it, and drops what takes too long."""

    def __init__(self) -> None:
        self._group = asyncio.TaskGroup()
        self._work: set[asyncio.Task[None]] = set()

    async def enter(self) -> None:
        """Begins; `leave` is to be called by the same task."""
        await self._group.__aenter__()

    async def leave(self) -> None:
        """Waits for the work that is left, at most 20 s."""
        late = asyncio.get_running_loop().call_later(EXIT_TIMEOUT, self.abandon)
        try:
            # Without any error: a group that knows of one cancels what ends processes.
            await self._group.__aexit__(None, None, None)
        finally:
            late.cancel()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Runs something beside what else there is."""
        task = self._group.create_task(guarded(work, name), name=name)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        # Cancelled before its first step, the guard never got to what it guards.
        task.add_done_callback(lambda _: work.close())
        return task

    def abandon(self) -> None:
        """Cancels whatever is not over."""
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
