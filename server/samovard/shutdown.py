"""Shut the service down in order, within the time that its platform gives it.

Knows the steps and how long each may take. Knows nothing of signals or of how a turn or a process
ends.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from samovard.core.operator.overview import Overview
from samovard.core.pool.pool import Pool
from samovard.core.sessions.sessions import Sessions
from samovard.maintenance import Maintenance
from samovard.settings import Server
from samovard.telemetry.incidents import incident

RESERVE = 2.0  # seconds of the stop budget: to reap, to send the last statuses, to flush telemetry
LOOK_AGAIN = 0.02


@dataclass(frozen=True, slots=True)
class Times:
    """The latest end of each step, in seconds since the turns' grace period ended."""

    interrupt: float
    terminate: float
    reap: float
    tell: float

    @classmethod
    def within(cls, budget: float) -> "Times":
        """Divide a budget in seconds among the steps; the rest is for telemetry."""
        reserve = min(RESERVE, budget / 2)
        killed = budget - reserve
        reaped = killed + reserve / 4
        return cls(min(budget / 4, killed), killed, reaped, reaped + reserve / 8)


@dataclass(eq=False, slots=True)
class Shutdown:
    """The shutdown of one service. `hurry` ends the wait for turns: a second signal sets it."""

    settings: Server
    sessions: Sessions
    pool: Pool
    maintenance: Maintenance
    overview: Overview
    public: grpc.aio.Server
    others: tuple[grpc.aio.Server, ...]
    hurry: asyncio.Event

    async def run(self) -> None:
        """Tell routers, let turns end, interrupt the rest, stop and kill processes, and report."""
        begin = self._now()
        self.maintenance.leaving()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurry.wait(), self.settings.drains_for)
        turns = self.sessions.running
        self.sessions.refuse_new()
        async with asyncio.TaskGroup() as group:
            # Sends GOAWAY at once; calls may go on until the stop below. The listeners of the
            # operator and of probes serve until the end.
            patience = self.settings.drain_grace + self.settings.stop_budget
            group.create_task(self.public.stop(patience))
            await self._while(self._turns_left, self._now() + self.settings.drain_grace)
            interrupted = self.sessions.running
            times, end = Times.within(self.settings.stop_budget), self._now()
            killed = await self._end_processes(times, end)
            self.maintenance.health.close()
            self.overview.close()
            for server in (self.public, *self.others):
                group.create_task(server.stop(max(end + times.tell - self._now(), 0.0)))
        left = self.pool.abandon()
        incident(
            self.maintenance.recorder,
            "drain.finished",
            turns=turns,
            interrupted=interrupted,
            killed=killed,
            left=left,
            seconds=round(self._now() - begin, 3),
        )

    async def _end_processes(self, times: Times, begin: float) -> int:
        """End the processes that still run, with more force at each step.

        Return how many were killed.
        """
        if not self.hurry.is_set():
            self.sessions.interrupt_all()
            await self._while(self._busy, begin + times.interrupt)
        self.pool.kill()
        for process in self.pool:
            process.handle.terminate()
        await self._while(self._processes_left, begin + times.terminate)
        killed = len(self.pool)
        for process in self.pool:
            process.handle.kill()
        await self._while(self._processes_left, begin + times.reap)
        return killed

    def _turns_left(self) -> bool:
        return bool(self.sessions.running) and not self.hurry.is_set()

    def _busy(self) -> bool:
        return bool(self.sessions.running or len(self.pool)) and not self.hurry.is_set()

    def _processes_left(self) -> bool:
        return len(self.pool) > 0

    async def _while(self, condition: Callable[[], bool], until: float) -> None:
        """Wait while a condition holds, but at most until a time."""
        while condition() and self._now() < until:
            await asyncio.sleep(LOOK_AGAIN)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
