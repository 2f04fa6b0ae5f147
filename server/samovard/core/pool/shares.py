"""Which tenant is served next: the one that has used the least of the slots, for its weight.

Weighted deficit round robin with the smallest quantum there is: instead of counting rounds, each
tenant has its use, in seconds of a slot divided by its weight, and the least use is served first.
A turn is charged what its tenant's turns take on average when it is granted, and its real length
when it has ended, so that long turns pay. A tenant that comes back after it had nothing to do
begins where the others are: it keeps a debt, and has no credit for the time that it was away.

Knows nothing of processes, sessions or limits.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

OF_ITS_OWN = 5  # turns until a tenant is charged its own average
REMEMBERED = 50  # turns that an average covers, about
FIRST_GUESS = 1.0  # seconds, before any turn has ended; all tenants are charged the same

T = TypeVar("T")


@dataclass(slots=True)
class Average:
    """The average of the last lengths, in seconds."""

    count: int = 0
    seconds: float = FIRST_GUESS

    def add(self, seconds: float) -> None:
        """Take one more length in."""
        self.count = min(self.count + 1, REMEMBERED)
        self.seconds += (seconds - self.seconds) / self.count


@dataclass(slots=True)
class _Share:
    used: float = 0.0  # seconds of a slot, each divided by the weight at that time
    turns: Average = field(default_factory=Average)


@dataclass(frozen=True, slots=True)
class Charge:
    """What a turn was charged when it was granted, in seconds, and when that was."""

    shares: "Shares"
    tenant: str
    seconds: float
    since: float

    def settle(self, now: float, *, began: bool) -> None:
        """Charge what the turn took. To be called once, when it leaves its slot.

        `began` is False if its prompt was not written: how long it took says nothing of turns.
        """
        seconds = max(now - self.since, 0.0)
        self.shares.settle(self.tenant, self.seconds, seconds, began=began)


class Shares:
    """The use of every tenant. `weight` returns a tenant's, above 0, as it is now."""

    def __init__(self, weight: Callable[[str], float]) -> None:
        self._weight = weight
        self._shares: dict[str, _Share] = {}
        self._turns = Average()  # of all tenants
        self._reached = 0.0  # use that every tenant with something to do has had, or its debtors

    def __repr__(self) -> str:
        return f"<Shares tenants={len(self._shares)} reached={self._reached:.3f}>"

    def __len__(self) -> int:
        return len(self._shares)

    @property
    def turn(self) -> float:
        """How long a turn takes on average, of any tenant, in seconds; 0 until one has ended."""
        return self._turns.seconds if self._turns.count else 0.0

    def arrived(self, tenant: str) -> None:
        """Take in a tenant that had nothing to do: what it did not use meanwhile is forgone."""
        share = self._of(tenant)
        share.used = max(share.used, self._reached)

    def served(self, tenant: str, waiting: Iterable[str], now: float) -> Charge:
        """Charge a turn of a tenant that is granted `now`; `waiting` is all that wait, it too."""
        # Not its own use: with a process of its own it may be served out of its turn.
        least = min(self._of(each).used for each in waiting)
        self._reached = max(self._reached, least)
        seconds = self._cost(tenant)
        self._charge(tenant, seconds)
        return Charge(self, tenant, seconds, now)

    def settle(self, tenant: str, charged: float, seconds: float, *, began: bool) -> None:
        """Charge a turn that has ended what it took, and no longer what it was charged at first."""
        if began:
            self._turns.add(seconds)
            self._of(tenant).turns.add(seconds)
        self._charge(tenant, seconds - charged)

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant that has no turns."""
        self._shares.pop(tenant, None)

    def order(self, lines: Mapping[str, Sequence[T]]) -> list[T]:
        """Return what waits in the tenants' lines in the order in which to serve it.

        Each line keeps its own order. Of tenants with the same use the first line comes first.
        """
        heads = [
            (self._of(tenant).used, position, 0, tenant)
            for position, tenant in enumerate(lines)
            if lines[tenant]
        ]
        heapq.heapify(heads)
        ordered = []
        while heads:
            used, position, at, tenant = heads[0]
            ordered.append(lines[tenant][at])
            if at + 1 < len(lines[tenant]):
                used += self._cost(tenant) / self._weight(tenant)
                heapq.heapreplace(heads, (used, position, at + 1, tenant))
            else:
                heapq.heappop(heads)
        return ordered

    def _of(self, tenant: str) -> _Share:
        # Also of one that was forgotten meanwhile: the order of all must not depend on it.
        return self._shares.get(tenant) or self._shares.setdefault(tenant, _Share(self._reached))

    def _cost(self, tenant: str) -> float:
        own = self._of(tenant).turns
        return own.seconds if own.count >= OF_ITS_OWN else self._turns.seconds

    def _charge(self, tenant: str, seconds: float) -> None:
        self._of(tenant).used += seconds / self._weight(tenant)
