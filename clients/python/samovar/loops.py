"""Values that belong to an event loop. Knows nothing of channels, which grpc.aio binds to loops."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """One value for each event loop that asks; those of closed loops are forgotten."""

    def __init__(self) -> None:
        self._values: dict[asyncio.AbstractEventLoop, T] = {}

    def get(self, make: Callable[[], T]) -> T:
        """Return the running loop's value, made now if it has none."""
        loop = asyncio.get_running_loop()
        if loop not in self._values:
            for closed in [other for other in self._values if other.is_closed()]:
                del self._values[closed]
            self._values[loop] = make()
        return self._values[loop]

    def clear(self) -> T | None:
        """Forget all values and return the running loop's, None if it has none."""
        own = self._values.pop(asyncio.get_running_loop(), None)
        self._values.clear()
        return own
