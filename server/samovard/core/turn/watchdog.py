"""Tells a turn that gets on from one that does not.

Counts progress, never lines: an agent that only shows signs of life is as stuck as one
that is silent. Knows nothing of lines or processes; what progress is, the agent says.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from samovard.core.process import Doing


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a turn may go without progress, in seconds, by what its agent does.

    `first` is until the very first; a tool has its time until its result, compaction
    until its end, and whatever else the agent waits for comes within `stream`.
    """

    first: float = 120.0
    stream: float = 120.0
    tool: float = 15 * 60.0
    compact: float = 5 * 60.0


class Watchdog:
    """Watches one turn from its prompt on, and calls `on_stalled` once if it does not get on.

    The time counts from the last progress, or from when the agent began what it does now
    if that is later. What the agent waits by itself before it asks the model again comes
    on top. While it is held it does not count: something else than the agent is waited for.
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
        self._waits = 0.0  # by the agent's own wish, since then
        self._holds = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed = 0.0  # when it looks
        self._stopped = False
        self._arm()

    def __repr__(self) -> str:
        state = "stopped" if self._stopped else f"holds={self._holds}"
        return f"<Watchdog {self.phase} for {self._clock() - self._since:.3f}s {state}>"

    @property
    def phase(self) -> str:
        """Names what is waited for."""
        waits_for_first = self._first and self._doing is Doing.MODEL
        return "first" if waits_for_first else self._doing.value

    @property
    def since(self) -> float:
        """When the time began to count."""
        return self._since

    def see(self, doing: Doing, *, progress: bool, waits: float = 0.0) -> None:
        """Hears what the agent does now, whether it got on, and how long it will wait.

        Called for each read of the agent's output: a timer is touched only if what it
        waits for may be due earlier than before.
        """
        begins = doing is not self._doing
        sooner = begins or (progress and self._first)
        if progress or begins:
            self._since = self._clock()
            self._waits = 0.0
        self._first = self._first and not progress
        self._doing = doing
        self._waits += max(waits, 0.0)
        if sooner:
            self._arm()

    def hold(self) -> None:
        """Stops counting until `release`, as often as this was called."""
        self._holds += 1
        self._disarm()

    def release(self) -> None:
        """Counts again, from now, unless something else holds it still."""
        self._holds -= 1
        self._since = self._clock()
        self._arm()

    def stop(self) -> None:
        """Watches no longer. Idempotent."""
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
        """Look at what is due, unless that is after the timer, which then goes on."""
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
            self._arm()  # it got on since the timer was set
        else:
            self.stop()
            self._on_stalled()
