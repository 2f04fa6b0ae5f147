"""What an operator sees of the service, and what he may do to it.

Knows the pool, the sessions and who measures memory. Knows nothing of gRPC.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from samovard.core.errors import Draining
from samovard.core.operator import snapshot as snapshots
from samovard.core.operator.snapshot import Snapshot
from samovard.core.pool.pool import Pool
from samovard.core.sessions.conversation import Clocks
from samovard.core.sessions.sessions import Sessions

Resident = Callable[[Collection[int]], Awaitable[Mapping[int, int]]]


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server, which started at a time of day; `agent_version` is that of new processes."""

    server_id: str
    version: str
    isolation: str
    start_time: float
    agent_version: Callable[[], str]


class Overview:
    """Looks at the pools. `resident` measures the memory of processes, by pid."""

    def __init__(
        self, server: ServerInfo, pool: Pool, sessions: Sessions, clocks: Clocks, resident: Resident
    ) -> None:
        self.server = server
        self._pool = pool
        self._sessions = sessions
        self._clock = clocks.monotonic
        self._resident = resident
        # Once: so that a process's times stay what they are, however the wall clock is set.
        self._epoch = clocks.wall() - clocks.monotonic()
        self._closed = asyncio.Event()

    async def look(self) -> Snapshot:
        """Takes a snapshot of this moment, but for memory, which is of the last second."""
        resident = await self._resident({p.handle.pid for p in self._pool if p.handle.pid})
        return snapshots.take(self._pool, self._sessions, resident, self._epoch)

    async def watch(self, interval: float) -> AsyncGenerator[Snapshot, None]:
        """Takes a snapshot at once and then each interval, but never while the last one is used.

        Whoever takes longer than that misses some. Raises `Draining` once the server goes.
        """
        due = self._clock()
        while not self._closed.is_set():
            yield await self.look()
            due = next_due(due, interval, self._clock())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), due - self._clock())
        raise Draining

    def close(self) -> None:
        """Ends the watching, now and for good."""
        self._closed.set()

    def drain(self, tenant: str, profile: str) -> tuple[int, int]:
        """Replaces a tenant's processes, those of one profile or of all.

        Gives how many were told to stop, and how many will be when their turn ends.
        """
        return self._pool.drain(tenant, profile)


def next_due(due: float, interval: float, now: float) -> float:
    """Gives when the next snapshot is due: the first whole interval that is not past."""
    return due + interval * max(-(-(now - due) // interval), 1.0)
