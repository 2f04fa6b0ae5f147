"""Who waits for a process, and in which order they are served.

First come first served within a session and among the sessions of a tenant; among
tenants in turn, so that one tenant's crowd cannot shut the others out. Knows nothing of
processes.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from samovard.core.errors import NoProcess, SamovarError
from samovard.core.process import Launch
from samovard.core.records import SessionKey

if TYPE_CHECKING:
    from samovard.core.pooled import Lease
    from samovard.core.turn import Turn


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many processes there may be and how long they may idle; durations in seconds."""

    slots: int
    queue: int
    max_starting: int = 1
    idle_ttl: float = 30 * 60.0
    max_wait: float = 60.0


@dataclass(eq=False, slots=True)
class Waiter:
    """A turn that waits for a process of its session.

    `launch` says what a process would be started with now; `kept` whether the session
    exists by now, so that an unused process is worth keeping. `lease` is completed once, in
    the step that grants, refuses or withdraws.
    """

    key: SessionKey
    turn: "Turn"
    launch: Callable[[], Launch]
    kept: Callable[[], bool]
    since: float
    lease: "asyncio.Future[Lease]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Queue:
    """The waiters, each in exactly one place. Bounded by `limit` in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tenants: dict[str, list[Waiter]] = {}  # the tenant served last stands last

    def __len__(self) -> int:
        return sum(len(waiters) for waiters in self._tenants.values())

    def add(self, waiter: Waiter, *, first: bool = False) -> None:
        """Adds a waiter at the end, or at the head of its tenant's line.

        Raises `NoProcess` (saturated) if as many wait as may.
        """
        if not first and len(self) >= self._limit:
            raise NoProcess("too many turns wait", cause="saturated", retry_after=1.0)
        line = self._tenants.setdefault(waiter.key.tenant, [])
        line.insert(0 if first else len(line), waiter)

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
