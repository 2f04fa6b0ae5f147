"""How late the event loop is.

Runs on the loop itself, by its timers. Knows nothing of where the figures go.
"""

import asyncio
from collections.abc import Callable

EVERY = 0.1  # seconds from one look at the loop to the next


class LoopLag:
    """Calls `lag` with the seconds by which each look came late.

    `failed` is called within the handler of an exception that `lag` raised.
    """

    def __init__(self, lag: Callable[[float], None], failed: Callable[[], None]) -> None:
        self._lag = lag
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins."""
        self._due = self._loop.time() + EVERY
        self._timer = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        """Ends."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        late = max(self._loop.time() - self._due, 0.0)
        self.start()
        try:
            self._lag(late)
        except Exception:
            self._failed()
