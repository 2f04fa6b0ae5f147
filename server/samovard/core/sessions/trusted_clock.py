"""The clock for the expiry of sessions, which is protected against steps of the wall clock.

A wall clock may be set while the service runs, and a step forward would expire every idle session
at once. So a step forward is only accepted once it has lasted for a day. Until then the monotonic
clock, which cannot be set, advances the time. A step back is accepted at once: it expires nothing
early.
"""

from samovard.core.sessions.conversation import Clocks
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

TOLERANCE = 5 * 60.0  # seconds; more than drift or slewing changes a clock between two calls
HOLD = 24 * 3600.0  # seconds that a step forward must last: a day for operators to correct it


class TrustedClock:
    """A wall clock that does not jump forward. Each step of the real clock is reported once."""

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
            self._since = now  # each step must last on its own
            incident(self._recorder, "clock.jumped", seconds=round(offset - self._seen, 3))
        self._seen = offset
        if offset <= self._trusted + TOLERANCE or now - self._since >= HOLD:
            self._trusted = offset
        return now + self._trusted
