"""How late the event loop is, and what there is at the moment: looked at now and then.

Runs on the loop itself, by its timers. Knows nothing of where the figures go.
"""

import asyncio
from collections.abc import Callable

EVERY = 0.1  # seconds from one look at the loop to the next
LEVELS_EVERY = 20  # looks at the loop between two at the levels


class LoopLag:
    """Calls `lag` with the seconds by which each look came late, and `look` now and then.

    `failed` is called within the handler of an exception that either of them raised.
    """

    def __init__(
        self,
        lag: Callable[[float], None],
        look: Callable[[], None],
        failed: Callable[[], None],
    ) -> None:
        self._lag = lag
        self._look = look
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._beats = 0
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
        beat, self._beats = self._beats, self._beats + 1
        late = max(self._loop.time() - self._due, 0.0)
        self.start()
        try:
            self._lag(late)
            if beat % LEVELS_EVERY == 0:
                self._look()
        except Exception:
            self._failed()
