"""Who waits for a process, and in which order they are served.

First come first served within a session and among the sessions of a tenant; among
tenants in turn, so that one tenant's crowd cannot shut the others out. Knows nothing of
processes.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from samovard.core.errors import NoProcess, QueueFull, SamovarError
from samovard.core.pool.counters import Counters
from samovard.core.pool.pooled_process import Lease
from samovard.core.process import Launch
from samovard.core.records import SessionKey
from samovard.core.turn.turn import Turn

TENANT_QUEUE = 16  # turns of a tenant that wait, where nothing else is set
RESERVE = 8  # one place in so many is kept


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many processes there may be and how long they may idle; durations in seconds.

    `queue` is how many turns may wait in all, `tenant_queue` returns how many of a tenant may.
    """

    slots: int
    queue: int
    max_starting: int = 1
    idle_ttl: float = 30 * 60.0
    max_wait: float = 60.0
    tenant_queue: Callable[[str], int] = lambda tenant: TENANT_QUEUE

    @property
    def reserve(self) -> int:
        """Return how many places of the queue are kept for tenants that neither run nor wait."""
        return max(self.queue // RESERVE, min(self.queue - 1, 1))


@dataclass(eq=False, slots=True)
class Waiter:
    """A turn that waits for a process of its session.

    `launch` says what a process would be started with now; `kept` whether the session
    exists by now, so that an unused process is worth keeping. `lease` is completed once, in
    the step that grants, refuses or withdraws.
    """

    key: SessionKey
    turn: Turn
    launch: Callable[[], Launch]
    kept: Callable[[], bool]
    since: float
    lease: asyncio.Future[Lease] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    def count(self, all: Counters, clock: Callable[[], float], *, again: bool) -> None:
        """Count the wait once it is over; `again`: as one that was counted before."""
        counters = all.of(self.key.tenant, self.turn.facts.profile)
        self.lease.add_done_callback(lambda _: counters.waited(clock() - self.since, again=again))


class Queue:
    """The waiters, each in exactly one place. Bounded in all, and for each tenant."""

    def __init__(self, limits: PoolLimits) -> None:
        self._limits = limits
        self._tenants: dict[str, list[Waiter]] = {}  # the tenant served last stands last

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._tenants.values())

    def add(
        self, waiter: Waiter, runs: Callable[[str], bool], *, room: bool, first: bool = False
    ) -> None:
        """Add a waiter at the end, or, whatever the bounds, at the head of its tenant's line.

        `runs` returns whether a tenant runs a turn. With `room` there is a slot for it, and it
        waits for its own start only. Raise `QueueFull` if as many turns of the tenant wait for a
        slot as may, `NoProcess` (saturated) if too many wait in all.
        """
        line = self._tenants.get(waiter.key.tenant, [])
        if not first:
            self._check(waiter.key.tenant, len(line), runs, room=room)
        line.insert(0 if first else len(line), waiter)
        self._tenants[waiter.key.tenant] = line

    def _check(self, tenant: str, waiting: int, runs: Callable[[str], bool], *, room: bool) -> None:
        most = self._limits.tenant_queue(tenant)
        if waiting >= most and not room:
            raise QueueFull(tenant, most)
        free = self._limits.queue - len(self)
        if free <= 0 or (free <= self._limits.reserve and (waiting or runs(tenant))):
            raise NoProcess("too many turns wait", cause="saturated", retry_after=1.0)

    def remove(self, waiter: Waiter) -> None:
        """Removes a waiter, if it is there."""
        line = self._tenants.get(waiter.key.tenant, [])
        if waiter in line:
            line.remove(waiter)
        if not line:
            self._tenants.pop(waiter.key.tenant, None)

    def served(self, waiter: Waiter) -> None:
        """Removes a waiter that was granted a process; its tenant goes to the end."""
        self.remove(waiter)
        if waiter.key.tenant in self._tenants:
            self._tenants[waiter.key.tenant] = self._tenants.pop(waiter.key.tenant)

    def refuse(self, key: SessionKey, error: SamovarError) -> None:
        """Ends the waiting of a session's turns with an error."""
        for waiter in self.of(key):
            self.remove(waiter)
            waiter.lease.set_exception(error)

    def of(self, key: SessionKey) -> list[Waiter]:
        """Gives the waiters of a session, first come first."""
        return [w for w in self._tenants.get(key.tenant, ()) if w.key == key]

    def sessions(self) -> list[SessionKey]:
        """Gives the sessions that wait, each once, in the order in which to serve them."""
        lines = [list(dict.fromkeys(w.key for w in line)) for line in self._tenants.values()]
        longest = max(map(len, lines), default=0)
        return [line[turn] for turn in range(longest) for line in lines if turn < len(line)]

    def __iter__(self) -> Iterator[Waiter]:
        for line in list(self._tenants.values()):
            yield from list(line)
