"""What a tenant may still do: how many turns in a minute, and at what cost in a day.

A tenant may begin as many turns at once as it may in a minute; after that they come back one by
one. A day is one in UTC. What the day has cost is the sum of its turns that ended, as the ledger
has it, and of what running turns are known to have cost so far.

Knows nothing of where bounds come from, of the store or of how a turn is stopped.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from samovard.core.errors import QuotaExceeded
from samovard.core.sessions.rate_limits import RateLimits

MINUTE = 60.0
DAY = 24 * 3600


@dataclass(frozen=True, slots=True)
class Quota:
    """The bounds of one tenant; None for no bound. `cost_per_day` is in US dollars."""

    turns_per_minute: int | None = None
    cost_per_day: float | None = None


class Quotas:
    """The quotas of all tenants, and what is used of them.

    `wall` is in seconds since the epoch, `monotonic` in seconds. `of` returns a tenant's quota as
    it is now. `spent` is what each tenant's turns have cost today, in US dollars.
    """

    def __init__(
        self,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
        of: Callable[[str], Quota] = lambda tenant: Quota(),
        spent: Mapping[str, float] | None = None,
    ) -> None:
        self._wall = wall
        self._clock = monotonic
        self._of = of
        self.upstream = RateLimits(monotonic)
        self._full: dict[str, float] = {}  # when a tenant may again begin as many as in a minute
        self._today = self._day()
        self._spent = dict(spent or {})
        self._running: dict[str, float] = {}  # cost so far of turns that run, by tenant

    def __repr__(self) -> str:
        return f"<Quotas recent={len(self._full)} {self.upstream!r}>"

    def check(self, tenant: str) -> None:
        """Raise `QuotaExceeded` (cost-per-day) if the tenant has spent what it may today."""
        most = self._of(tenant).cost_per_day
        if most is not None and self.cost(tenant) >= most:
            message = f"the tenant's turns have cost today's {most:g} US dollars"
            left = DAY - self._wall() % DAY
            raise QuotaExceeded(_whose(tenant), message, cause="cost-per-day", retry_after=left)

    def take(self, tenant: str) -> None:
        """Count a turn that begins.

        Raise `QuotaExceeded` (turns-per-minute), and count nothing, if too many have begun.
        """
        most = self._of(tenant).turns_per_minute
        if most is None:
            return
        now, every = self._clock(), MINUTE / most
        full = max(self._full.get(tenant, 0.0), now) + every
        wait = full - now - MINUTE
        if wait > every / 2:  # halfway between two turns: sums are not exact
            message = f"the tenant may begin {most} turns in a minute"
            raise QuotaExceeded(_whose(tenant), message, cause="turns-per-minute", retry_after=wait)
        # Those that have everything again are dropped, to keep the dict from growing.
        self._full = {who: when for who, when in self._full.items() if when > now}
        self._full[tenant] = full

    def metered(self, tenant: str) -> bool:
        """True if the running cost of the tenant's turns is to be known."""
        return self._of(tenant).cost_per_day is not None

    def cost(self, tenant: str) -> float:
        """Return what the tenant's turns have cost today, in US dollars."""
        if self._today != self._day():
            self._today, self._spent = self._day(), {}
        return self._spent.get(tenant, 0.0) + self._running.get(tenant, 0.0)

    def forget(self, tenant: str) -> None:
        """Drop what is known of a tenant that has no turns."""
        for known in (self._full, self._spent, self._running):
            known.pop(tenant, None)

    def budget(self, tenant: str) -> "Budget":
        """Return the budget of a turn that is about to run."""
        return Budget(self, tenant)

    def runs(self, tenant: str, more: float) -> str:
        """Count the cost of a running turn. Return the bound that it exceeds, if it does."""
        self._running[tenant] = self._running.get(tenant, 0.0) + more
        most = self._of(tenant).cost_per_day
        if most is not None and self.cost(tenant) > most:
            return f"{most:g} US dollars a day for all of the tenant's turns"
        return ""

    def ended(self, tenant: str, so_far: float, cost: float) -> None:
        """Count a turn that has ended, of which `so_far` was known while it ran."""
        self.cost(tenant)  # first: a new day may have begun
        self._spent[tenant] = self._spent.get(tenant, 0.0) + cost
        if so_far:
            self._running[tenant] = max(self._running.get(tenant, 0.0) - so_far, 0.0)

    def _day(self) -> str:
        return time.strftime("%Y-%m-%d", time.gmtime(self._wall()))


class Budget:
    """What one turn takes of its tenant's day."""

    def __init__(self, quotas: Quotas, tenant: str) -> None:
        self._quotas = quotas
        self._tenant = tenant
        self._so_far = 0.0
        self._ended = False

    def costs(self, usd: float) -> str:
        """Called with the turn's cost so far. Return the bound that is exceeded, or nothing."""
        more, self._so_far = usd - self._so_far, usd
        return "" if self._ended else self._quotas.runs(self._tenant, more)

    def ended(self, usd: float) -> None:
        """Called with the cost of the turn once it has ended. Idempotent."""
        if not self._ended:
            self._ended = True
            self._quotas.ended(self._tenant, self._so_far, usd)


def _whose(tenant: str) -> str:
    return f"tenant:{tenant}"
