"""The queue of turns that wait for a process, and the order in which they are served.

Within a session, and among the sessions of a tenant, the order is first come, first served.
Tenants are served by what they have used of the slots (`Shares`), so that one tenant with many
turns, or with long ones, cannot block the others. The queue does not depend on the state of
processes.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from samovard.core.errors import NoProcess, QueueFull, SamovarError
from samovard.core.pool.counters import Counters
from samovard.core.pool.pooled_process import Lease
from samovard.core.pool.shares import Charge, Shares
from samovard.core.process import Launch
from samovard.core.records import SessionKey
from samovard.core.turn.turn import Turn

TENANT_QUEUE = 16  # how many turns of a tenant may wait by default
ALL = ""  # in place of a tenant
SOONEST = 1.0  # seconds after which a refused turn may come again, at least
RESERVE = 8  # one place of the queue in this many is reserved, and one slot of this many or more


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """The limits of one tenant.

    `queue` is how many of its turns may wait. `weight`, above 0, is its share of the slots in
    proportion to those of the other tenants, while there are too few. `processes` is how many
    it may have, None for any number.
    """

    queue: int = TENANT_QUEUE
    weight: float = 1.0
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """The limits of the pool. Durations are in seconds.

    `slots` is how many processes there may be; `max_starting` is how many may start at once;
    `idle_ttl` is how long a process may be idle; `max_wait` is how long a turn may wait.
    `queue` is how many turns may wait in all; `tenant` returns the limits of one tenant.
    `max_tenants` is how many tenants may be served, None for any number; `tenants` are those that
    count from the start.
    """

    slots: int
    queue: int
    max_starting: int = 1
    idle_ttl: float = 30 * 60.0
    max_wait: float = 60.0
    tenant: Callable[[str], TenantLimits] = lambda tenant: TenantLimits()
    max_tenants: int | None = None
    tenants: frozenset[str] = frozenset()

    @property
    def kept_slots(self) -> int:
        """How many slots are kept for tenants that run nothing, if there are several tenants."""
        return int(self.slots >= RESERVE)

    @property
    def reserve(self) -> int:
        """How many places of the queue are reserved for tenants that neither run nor wait."""
        return max(self.queue // RESERVE, min(self.queue - 1, 1))


@dataclass(eq=False, slots=True)  # by identity: the queue must remove exactly this waiter
class Waiter:
    """A turn that waits for a process of its session.

    `launch` returns the parameters that a process would be started with now. `kept` returns True
    if the session is stored by now, so that an unused process is worth keeping. `since` is when
    the wait began and `patience` how long its caller waits, None for ever, in seconds. `lease` is
    completed once, in the step in which the turn is granted, refused or withdrawn.
    """

    turn: Turn
    launch: Callable[[], Launch]
    kept: Callable[[], bool]
    since: float
    patience: float | None = None
    lease: asyncio.Future[Lease] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    @property
    def key(self) -> SessionKey:
        """The session of the turn."""
        return self.turn.key

    def count(self, all: Counters, clock: Callable[[], float], *, again: bool) -> None:
        """Count the wait once it is over. `again` is True if the turn was counted before."""
        counters = all.of(self.key.tenant, self.turn.facts.profile)
        self.lease.add_done_callback(lambda _: counters.waited(clock() - self.since, again=again))


class Queue:
    """The waiters, each in exactly one place. The queue is bounded in all and per tenant."""

    def __init__(self, limits: PoolLimits) -> None:
        self.limits = limits
        self._served = set(limits.tenants)  # for good: what an agent left behind is not undone
        self._tenants: dict[str, list[Waiter]] = {}  # the tenant served last stands last
        self.shares = Shares(lambda tenant: limits.tenant(tenant).weight)
        self.paused: set[str] = set()  # tenants whose turns are not granted; ALL for all of them

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._tenants.values())

    def add(
        self, waiter: Waiter, runs: Callable[[str], bool], *, room: bool, first: bool = False
    ) -> None:
        """Add a waiter at the end of its tenant's line, or with `first` at its head.

        At the head the limits do not apply. `runs` returns True if a tenant runs a turn. `room`
        is True if there is a slot for the waiter, so that it only waits for its own start. Raise
        `QueueFull` if as many turns of the tenant wait for a slot as may, `NoProcess`
        (other-tenant) if it is not among the tenants that are served, or (saturated) if too many
        wait in all, or so many that its turn would come too late.
        """
        tenant, most = waiter.key.tenant, self.limits.max_tenants
        if most is not None and tenant not in self._served and len(self._served) >= most:
            message = "this instance serves other tenants only"
            raise NoProcess(message, cause="other-tenant", retry_after=1.0)
        line = self._tenants.get(tenant, [])
        if not first:
            self._check(waiter, len(line), runs, room=room)
        line.insert(0 if first else len(line), waiter)
        # Only now: a refused waiter must not leave an empty line for its tenant, or count it.
        if tenant not in self._tenants:
            self.shares.arrived(tenant)
        self._tenants[tenant] = line
        if most is not None:
            self._served.add(tenant)

    def _check(
        self, waiter: Waiter, waiting: int, runs: Callable[[str], bool], *, room: bool
    ) -> None:
        tenant, limits = waiter.key.tenant, self.limits
        most = limits.tenant(tenant).queue
        wait = 0.0 if room else self._expected(waiter.key)
        again = max(wait, SOONEST)
        if waiting >= most and not room:
            raise QueueFull(tenant, most, again)
        free = limits.queue - len(self)
        # Tenants with turns cannot take the last places, which are for tenants without any.
        if free <= 0 or (free <= limits.reserve and (waiting or runs(tenant))):
            raise NoProcess("too many turns wait", cause="saturated", retry_after=again)
        longest = limits.max_wait if waiter.patience is None else waiter.patience
        if wait > min(longest, limits.max_wait):
            message = f"no process is expected to come free in time, but in {wait:.1f} s"
            raise NoProcess(message, cause="saturated", retry_after=again)

    def _expected(self, key: SessionKey) -> float:
        """Return for how long a turn that comes now is expected to wait for a slot, in seconds."""
        lines = self._sessions()
        line = lines.setdefault(key.tenant, [])
        if key not in line:
            line.append(key)
        return self.shares.order(lines).index(key) * self.shares.turn / self.limits.slots

    def remove(self, waiter: Waiter) -> None:
        """Remove a waiter if it is in the queue."""
        line = self._tenants.get(waiter.key.tenant, [])
        if waiter in line:
            line.remove(waiter)
        if not line:
            self._tenants.pop(waiter.key.tenant, None)

    def served(self, waiter: Waiter, now: float) -> Charge:
        """Remove a waiter that is granted a process, and return what its tenant is charged."""
        charge = self.shares.served(waiter.key.tenant, self._tenants, now)
        self.remove(waiter)
        if waiter.key.tenant in self._tenants:
            # At the end: of tenants that have used the same, the first line is served.
            self._tenants[waiter.key.tenant] = self._tenants.pop(waiter.key.tenant)
        return charge

    def refuse(self, key: SessionKey, error: SamovarError) -> None:
        """Remove all waiters of a session and complete their leases with an error."""
        for waiter in self.of(key):
            self.remove(waiter)
            waiter.lease.set_exception(error)

    def of(self, key: SessionKey) -> list[Waiter]:
        """Return the waiters of a session, first come first."""
        return [w for w in self._tenants.get(key.tenant, ()) if w.key == key]

    def sessions(self) -> list[SessionKey]:
        """Return the sessions with waiters to serve, each once, in the order of serving."""
        lines = self._sessions()
        return self.shares.order({own: line for own, line in lines.items() if self.serves(own)})

    def serves(self, tenant: str) -> bool:
        """Return False if a tenant's turns wait until an operator lets them go on."""
        return tenant not in self.paused and ALL not in self.paused

    def held(self, tenant: str) -> NoProcess | None:
        """Return the error for a turn that waited too long because of an operator, or None."""
        if self.serves(tenant):
            return None
        return NoProcess("an operator holds turns up", cause="paused", retry_after=SOONEST)

    def _sessions(self) -> dict[str, list[SessionKey]]:
        lines = self._tenants.items()
        return {tenant: list(dict.fromkeys(w.key for w in line)) for tenant, line in lines}

    def __iter__(self) -> Iterator[Waiter]:
        # Copies, because the loop's body may remove waiters.
        for line in list(self._tenants.values()):
            yield from list(line)
