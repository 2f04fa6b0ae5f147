"""The operator's view of the service: snapshots of the pools, and draining them.

It depends on the pool, on the sessions and on a function that measures memory, not on gRPC.
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
    """The server. `start_time` is in seconds since the epoch.

    `agent_version` returns the version of new agent processes.
    """

    server_id: str
    version: str
    isolation: str
    network: str
    start_time: float
    agent_version: Callable[[], str]


class Overview:
    """Snapshots of the pools. `resident` returns the memory of processes in bytes, by pid."""

    def __init__(
        self, server: ServerInfo, pool: Pool, sessions: Sessions, clocks: Clocks, resident: Resident
    ) -> None:
        self.server = server
        self._pool = pool
        self._sessions = sessions
        self._clock = clocks.monotonic
        self._resident = resident
        # Taken once, so that the times of a process do not change when the wall clock is set.
        self._epoch = clocks.wall() - clocks.monotonic()
        self._closed = asyncio.Event()

    async def look(self) -> Snapshot:
        """Return a snapshot of this moment. Memory may have been measured a second ago."""
        resident = await self._resident({p.handle.pid for p in self._pool if p.handle.pid})
        return snapshots.take(self._pool, self._sessions, resident, self._epoch)

    async def watch(self, interval: float) -> AsyncGenerator[Snapshot, None]:
        """Yield a snapshot at once and then every `interval` seconds.

        A consumer that takes longer than an interval skips the snapshots that were due
        meanwhile. Raise `Draining` once the server shuts down.
        """
        due = self._clock()
        while not self._closed.is_set():
            yield await self.look()
            due = next_due(due, interval, self._clock())
            # Not `sleep`: a client must learn at once that the server shuts down.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), due - self._clock())
        raise Draining

    def close(self) -> None:
        """End all `watch` calls, now and in the future, with `Draining`."""
        self._closed.set()


def next_due(due: float, interval: float, now: float) -> float:
    """Return when the next snapshot is due: the first whole interval that is not past."""
    # Both negations together round up; `max` skips the snapshot that was just taken.
    return due + interval * max(-(-(now - due) // interval), 1.0)
