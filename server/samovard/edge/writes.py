"""Write responses in a way that lets a call be ended at any moment.

gRPC sends a call's metadata with its first response and notes that only once the write is over
(grpcio 1.85). A task that is cancelled within that write sends them again with its status, which
gRPC refuses: the caller would wait for ever. So the first write is never cut off. Knows nothing of
why a call is ended.
"""

import asyncio
from contextvars import ContextVar
from typing import Any

import grpc

# Any: grpc's own type is generic in its stubs only.
Context = grpc.aio.ServicerContext[Any, Any]


class Cut:
    """Canceller of the task of one call, but not during its first write."""

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self._within = False
        self._due = False
        self.began = False  # its first response was written

    def end(self) -> None:
        """Cancel the task now, or once its first write is over."""
        if self._within:
            self._due = True
        else:
            self._task.cancel()

    async def first(self, context: Context, response: Any) -> None:
        """Write the first response. Raise `CancelledError` if the call was ended meanwhile."""
        self._within = True
        try:
            await context.write(response)
        finally:
            self._within = False
        self.began = True
        if self._due:
            raise asyncio.CancelledError


_cut: ContextVar[Cut | None] = ContextVar("cut", default=None)


def cut_of_this_task() -> Cut:
    """Return the canceller of the current task's call."""
    task = asyncio.current_task()
    assert task is not None
    cut = Cut(task)
    _cut.set(cut)
    return cut


async def write(context: Context, response: Any) -> None:
    """Write a response of the current call."""
    cut = _cut.get()
    if cut is None or cut.began:
        await context.write(response)
    else:
        await cut.first(context, response)
