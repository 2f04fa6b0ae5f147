"""Measure how late the event loop runs its timers.

Runs on the loop itself. Independent of where the figures go.
"""

import asyncio
from collections.abc import Callable

EVERY = 0.1  # seconds between two samples


class LoopLag:
    """Call `lag` with the seconds by which each timer ran late.

    If `lag` raises an exception, call `failed` while it is being handled.
    """

    def __init__(self, lag: Callable[[float], None], failed: Callable[[], None]) -> None:
        self._lag = lag
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start sampling."""
        self._due = self._loop.time() + EVERY
        self._timer = self._loop.call_at(self._due, self._beat)

    def stop(self) -> None:
        """Stop sampling."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        late = max(self._loop.time() - self._due, 0.0)
        self.start()
        try:
            self._lag(late)
        except Exception:
            self._failed()
