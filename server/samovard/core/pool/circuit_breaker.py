"""Circuit breakers for sessions whose processes keep ending by themselves.

While a session's breaker is open, no process is started for it. A breaker considers how long a
process was up, not why it ended. Sessions are identified by their home, so a session that is
closed and created again has a new breaker.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from samovard.core.errors import NoProcess

FAILURES, WITHIN = 3, 60.0  # this many ends within this many seconds open a breaker
SHORTEST, LONGEST = 30.0, 10 * 60.0  # how many seconds it stays open; doubled each time
GOOD = 10.0  # a process that was up for this many seconds is not part of a crash loop
REMEMBERED = 2 * LONGEST  # seconds after its last end for which an opened breaker is kept


@dataclass(slots=True)
class _Breaker:
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    until: float = 0.0
    delay: float = 0.0  # how long it was open last, in seconds; 0 if it never was


class CircuitBreakers:
    """The breakers of all sessions. `clock` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Both are ordered by the last end, so that dropping old breakers stops at the first new.
        self._counting: OrderedDict[str, _Breaker] = OrderedDict()
        self._opened: OrderedDict[str, _Breaker] = OrderedDict()

    def __repr__(self) -> str:
        now = self._clock()
        opened = sum(breaker.until > now for breaker in self._opened.values())
        return f"<CircuitBreakers open={opened} of {len(self._counting) + len(self._opened)}>"

    def ended(self, home: str, up: float) -> float:
        """Record that a process ended by itself after `up` seconds.

        Return how many seconds no process is started for its session, or 0 if one may be
        started at once.
        """
        now = self._clock()
        _drop_before(self._counting, now - WITHIN)
        _drop_before(self._opened, now - REMEMBERED)
        # Removed and inserted again below, which keeps the order by the last end.
        breaker = self._counting.pop(home, None) or self._opened.pop(home, None) or _Breaker()
        if up >= GOOD:
            return 0.0  # and the breaker is forgotten: the session is healthy
        breaker.ends.append(now)
        often = len(breaker.ends) == FAILURES and now - breaker.ends[0] <= WITHIN
        # A breaker that was open opens again at the first end, without counting to `FAILURES`.
        if not (often or breaker.delay):
            self._counting[home] = breaker
            return 0.0
        self._opened[home] = breaker
        breaker.delay = min(2 * breaker.delay or SHORTEST, LONGEST)
        breaker.until = now + breaker.delay
        return breaker.delay

    def forgive(self, home: str) -> None:
        """Let processes of a session be started again."""
        self._opened.pop(home, None)
        self._counting.pop(home, None)

    def refusal(self, home: str) -> NoProcess | None:
        """Return the error for a turn that needs a start while the breaker is open, or None."""
        breaker = self._opened.get(home)
        left = breaker.until - self._clock() if breaker is not None else 0.0
        if left <= 0:
            return None
        return NoProcess("the agent keeps ending", cause="crash-loop", retry_after=left)


def _drop_before(breakers: OrderedDict[str, _Breaker], time: float) -> None:
    """Drop the breakers whose last end is before `time`, without visiting the others."""
    while breakers and next(iter(breakers.values())).ends[-1] < time:
        breakers.popitem(last=False)
