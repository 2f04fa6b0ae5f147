"""The time that sessions expire by. Knows nothing of sessions.

A wall clock may be set while the service runs, and a step forward would end every idle session
at once. So a step forward counts only once it has lasted; the monotonic clock, which nobody
sets, carries the time on until then. A step back counts at once: it ends nothing early.
"""

from samovard.core.sessions.conversation import Clocks
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

TOLERANCE = 5 * 60.0  # more than a clock drifts, or is adjusted by slewing, between two looks
HOLD = 24 * 3600.0  # how long a step forward must last: somebody has a day to put it right


class TrustedClock:
    """A wall clock that does not jump forward; each step of the real one is reported once."""

    def __init__(self, clocks: Clocks, recorder: Recorder) -> None:
        self._clocks = clocks
        self._recorder = recorder
        self._since = clocks.monotonic()  # when the wall clock last stepped
        self._seen = self._trusted = clocks.wall() - self._since  # wall minus monotonic

    def now(self) -> float:
        """Return the time in seconds since the epoch. Must be called every few minutes."""
        now = self._clocks.monotonic()
        offset = self._clocks.wall() - now
        if abs(offset - self._seen) > TOLERANCE:
            self._since = now
            incident(self._recorder, "clock.jumped", seconds=round(offset - self._seen, 3))
        self._seen = offset
        if offset <= self._trusted + TOLERANCE or now - self._since >= HOLD:
            self._trusted = offset
        return now + self._trusted
