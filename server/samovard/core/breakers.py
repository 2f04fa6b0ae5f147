"""Sessions whose processes keep ending by themselves: for a while nothing is started for them.

Knows how long a process was up, and nothing of why it ended. A session is known by its home, so
that one that is closed and made again begins anew.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from samovard.core.errors import NoProcess

FAILURES, WITHIN = 3, 60.0  # so many ends in so many seconds open a breaker
SHORTEST, LONGEST = 30.0, 10 * 60.0  # for how long; twice as long each time
GOOD = 10.0  # a process that was up for so long was none of a crash loop


@dataclass(slots=True)
class _Breaker:
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=FAILURES))
    until: float = 0.0
    delay: float = 0.0  # of the last time


class Breakers:
    """The breakers of all sessions. `clock` gives seconds that never go back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._breakers: dict[str, _Breaker] = {}

    def __repr__(self) -> str:
        now = self._clock()
        opened = sum(breaker.until > now for breaker in self._breakers.values())
        return f"<Breakers open={opened} of {len(self._breakers)}>"

    def ended(self, home: str, up: float) -> float:
        """Takes note that a process ended by itself after so many seconds.

        Gives for how long nothing is started for its session now, 0 if that is not so.
        """
        now = self._clock()
        self._forget_old(now)
        if up >= GOOD:
            self._breakers.pop(home, None)
            return 0.0
        breaker = self._breakers.setdefault(home, _Breaker())
        breaker.ends.append(now)
        often = len(breaker.ends) == FAILURES and now - breaker.ends[0] <= WITHIN
        if not (often or breaker.delay):
            return 0.0
        breaker.delay = min(2 * breaker.delay or SHORTEST, LONGEST)
        breaker.until = now + breaker.delay
        return breaker.delay

    def refusal(self, home: str) -> NoProcess | None:
        """Says what a turn is told that needs a start, if its session may have none now."""
        breaker = self._breakers.get(home)
        left = breaker.until - self._clock() if breaker is not None else 0.0
        if left <= 0:
            return None
        return NoProcess("the agent keeps ending", cause="crash-loop", retry_after=left)

    def _forget_old(self, now: float) -> None:
        old = [
            home
            for home, breaker in self._breakers.items()
            if max(breaker.ends[-1] + WITHIN, breaker.until + LONGEST) < now
        ]
        for home in old:
            del self._breakers[home]
