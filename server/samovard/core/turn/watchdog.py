"""The watchdog, which detects a turn that makes no progress.

Only progress counts, not output: an agent that only shows signs of life is as stuck as a silent
one. The watchdog does not depend on lines or processes; `agent` defines what progress is.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from samovard.core.process import Doing


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a turn may go without progress, by the activity of its agent.

    `first` is the time until the first progress of the turn, `tool` until the result of a tool,
    `compact` until the end of compaction, and `stream` until any other progress.
    """

    first: float = 120.0
    stream: float = 120.0
    tool: float = 15 * 60.0
    compact: float = 5 * 60.0


class Watchdog:
    """The watchdog of one turn. It calls `on_stalled` once if the turn makes no progress.

    The time counts from the last progress, or from the start of the agent's present activity if
    that is later. Delays that the agent announced, before it retries a request, are added. The
    time does not count while the watchdog is held because the turn waits for something else.
    """

    def __init__(
        self, patience: Patience, clock: Callable[[], float], on_stalled: Callable[[], None]
    ) -> None:
        self._patience = patience
        self._clock = clock
        self._on_stalled = on_stalled
        self._first = True
        self._doing = Doing.MODEL
        self._since = clock()
        self._waits = 0.0  # delays that the agent has announced since then, in seconds
        self._holds = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed = 0.0  # when the timer fires
        self._stopped = False
        self._arm()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else f"holds={self._holds}"
        return f"<Watchdog {self.phase} for {self._clock() - self._since:.3f}s {state}>"

    @property
    def phase(self) -> str:
        """The name of the limit that applies now: a field of `Patience`."""
        waits_for_first = self._first and self._doing is Doing.MODEL
        return "first" if waits_for_first else self._doing.value

    @property
    def since(self) -> float:
        """When the time began to count, in seconds of the clock."""
        return self._since

    def see(self, doing: Doing, *, progress: bool, waits: float = 0.0) -> None:
        """Called with the agent's activity, whether it made progress, and its delay in seconds."""
        # This runs for each read of the agent's output, so a timer is only set anew if it could
        # be due earlier; `_look` corrects a timer that fires too early.
        begins = doing is not self._doing
        sooner = begins or (progress and self._first)
        if progress or begins:
            self._since = self._clock()
            self._waits = 0.0
        self._first = self._first and not progress
        self._doing = doing
        self._waits += max(waits, 0.0)  # a negative delay must not shorten the time
        if sooner:
            self._arm()

    def hold(self) -> None:
        """Stop counting until `release` was called as often as `hold`."""
        self._holds += 1  # a full stream and a permission request may hold it at the same time
        self._disarm()

    def release(self) -> None:
        """Count again, from now on, unless another `hold` is in effect."""
        self._holds -= 1
        self._since = self._clock()
        self._arm()

    def stop(self) -> None:
        """Stop watching. Idempotent."""
        self._stopped = True
        self._disarm()

    def _due(self) -> float:
        patience = self._patience
        limits = {
            "first": patience.first,
            Doing.MODEL.value: patience.stream,
            Doing.TOOL.value: patience.tool,
            Doing.COMPACTING.value: patience.compact,
        }
        return self._since + limits[self.phase] + self._waits

    def _arm(self) -> None:
        """Set the timer, unless one is set that fires earlier."""
        if self._stopped or self._holds:
            return
        due = self._due()
        if self._timer is None or due < self._timed:
            self._disarm()
            self._timed = due
            delay = max(due - self._clock(), 0.0)
            self._timer = asyncio.get_running_loop().call_later(delay, self._look)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self._clock() < self._due():
            self._arm()  # there was progress since the timer was set
        else:
            self.stop()
            self._on_stalled()
