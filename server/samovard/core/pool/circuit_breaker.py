"""Sessions whose processes keep ending by themselves: for a while nothing is started for them.

Knows how long a process was up, and nothing of why it ended. A session is known by its home, so
that one that is closed and made again begins anew.
"""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from samovard.core.errors import NoProcess

FAILURES, WITHIN = 3, 60.0  # so many ends in so many seconds open a breaker
SHORTEST, LONGEST = 30.0, 10 * 60.0  # for how long; twice as long each time
GOOD = 10.0  # a process that was up for so long was none of a crash loop
REMEMBERED = 2 * LONGEST  # how long after its last end an opened breaker still counts


@dataclass(slots=True)
class _Breaker:
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    until: float = 0.0
    delay: float = 0.0  # of the last time


class CircuitBreakers:
    """The breakers of all sessions. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        # Each in the order of the last end, so that the old ones stand first.
        self._counting: OrderedDict[str, _Breaker] = OrderedDict()
        self._opened: OrderedDict[str, _Breaker] = OrderedDict()

    def __repr__(self) -> str:
        now = self._clock()
        opened = sum(breaker.until > now for breaker in self._opened.values())
        return f"<CircuitBreakers open={opened} of {len(self._counting) + len(self._opened)}>"

    def ended(self, home: str, up: float) -> float:
        """Record that a process ended by itself after `up` seconds.

        Return for how many seconds nothing is started for its session now, 0 if a start may be
        tried at once.
        """
        now = self._clock()
        _drop_before(self._counting, now - WITHIN)
        _drop_before(self._opened, now - REMEMBERED)
        breaker = self._counting.pop(home, None) or self._opened.pop(home, None) or _Breaker()
        if up >= GOOD:
            return 0.0
        breaker.ends.append(now)
        often = len(breaker.ends) == FAILURES and now - breaker.ends[0] <= WITHIN
        if not (often or breaker.delay):
            self._counting[home] = breaker
            return 0.0
        self._opened[home] = breaker
        breaker.delay = min(2 * breaker.delay or SHORTEST, LONGEST)
        breaker.until = now + breaker.delay
        return breaker.delay

    def refusal(self, home: str) -> NoProcess | None:
        """Says what a turn is told that needs a start, if its session may have none now."""
        breaker = self._opened.get(home)
        left = breaker.until - self._clock() if breaker is not None else 0.0
        if left <= 0:
            return None
        return NoProcess("the agent keeps ending", cause="crash-loop", retry_after=left)


def _drop_before(breakers: OrderedDict[str, _Breaker], time: float) -> None:
    """Drop the breakers whose last end is older, without a look at the others."""
    while breakers and next(iter(breakers.values())).ends[-1] < time:
        breakers.popitem(last=False)
