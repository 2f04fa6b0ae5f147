"""Periodic work of a running service.

Looks whether agents can be started and the store answers, and says so; sweeps up what agents'
tools left behind; closes expired sessions; ends what is under way with credentials that are not
valid any more, and tenants that are being deleted; reads the gauges. Decides nothing by itself.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial

import structlog

from samovard import heap
from samovard.agent import process_tree
from samovard.agent.boot import Agent
from samovard.agent.command import Command
from samovard.agent.process_tree import Strangers
from samovard.audit.trail import Trail
from samovard.bounding import Bounds
from samovard.core.errors import Misconfigured, NoProcess, SamovarError
from samovard.core.operator.readiness import OUT_OF_DISK, STARTING, TRY_AGAIN, Readiness
from samovard.core.pool.background import BackgroundWork, repeat
from samovard.core.pool.pool import Pool
from samovard.core.pool.states import ProcessState
from samovard.core.sessions.sessions import Sessions
from samovard.deleting import Deleting
from samovard.edge.certificates import Certificates
from samovard.edge.health import Health
from samovard.edge.revocation import LOOK_EVERY as REVOKE_EVERY
from samovard.edge.revocation import Revocation
from samovard.store.sqlite.database import Database
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Gauges, Recorder

LOOK_EVERY = 5.0
STORE_EVERY = 2.0
STORE_TIMEOUT = 5.0
TELL_EVERY = 0.5
TRY_SOON, TRY_NEXT = 1.0, 3.0  # seconds after a start that failed, after one that answered
FIRST_START = 10.0
REFUSED_EVERY = 60.0
SWEEP_EVERY = 1.0
TRIM_EVERY = 1.0
EXPIRE_EVERY = 60.0
MEASURE_EVERY = 10.0
COUNT_EVERY = 1.0
CERTIFICATES_EVERY = 60.0
DELETE_EVERY = 1.0
GAUGES_EVERY = 2.0

Step = Callable[[], Awaitable[object]]

_log = structlog.get_logger("samovard")


@dataclass(eq=False, slots=True)
class Maintenance:
    """The periodic work of a running service."""

    server_id: str
    strangers: Strangers
    agent: Agent
    pool: Pool
    background: BackgroundWork
    sessions: Sessions
    database: Database
    readiness: Readiness
    health: Health
    recorder: Recorder
    revocation: Revocation
    deleting: Deleting
    trail: Trail
    gauges: Callable[[], Awaitable[Gauges]]
    bounds: Bounds
    certificates: Certificates | None = None
    _running: str = ""  # the digest of the CLI that processes run
    _failing: tuple[str, ...] = ()  # result of the last look at the machine
    _obstacles: tuple[str, ...] = (STARTING,)
    _pause: float = TRY_SOON
    _measuring: float = 0.0  # seconds that the last look at the disk took
    _known: asyncio.Event = field(default_factory=asyncio.Event)
    _try_now: asyncio.Event = field(default_factory=asyncio.Event)
    _refused_at: float = float("-inf")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run all loops until the block is left."""
        self._running = self.agent.cli.digest
        tasks = [
            self.background.spawn(repeat(name, work, pause, self.recorder), name)
            for name, (work, pause) in self.loops().items()
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()

    def loops(self) -> Mapping[str, tuple[Step, Step]]:
        """Return each background loop: one round of its work, and the pause after it."""
        none = partial(asyncio.sleep, 0)  # these rounds begin with their pause
        return {
            "look": (self._look, partial(asyncio.sleep, LOOK_EVERY)),
            "try a start": (self._try, self._wait_to_try),
            "ask the store": (self._ask_store, partial(asyncio.sleep, STORE_EVERY)),
            "tell health": (self._tell, self._wait_to_tell),
            "sweep": (self._sweep, none),
            "return memory": (self._return_memory, none),
            "expire": (self._expire, none),
            "measure homes": (self._measure_homes, self._wait_to_measure),
            "count processes": (self._count_processes, partial(asyncio.sleep, COUNT_EVERY)),
            "look at credentials": (
                self._look_at_credentials,
                partial(asyncio.sleep, REVOKE_EVERY),
            ),
            "end deleted tenants": (self._end_deleted, partial(asyncio.sleep, DELETE_EVERY)),
            "look at certificates": (
                self._look_at_certificates,
                partial(asyncio.sleep, CERTIFICATES_EVERY),
            ),
            "read gauges": (self._read_gauges, partial(asyncio.sleep, GAUGES_EVERY)),
        }

    async def settled(self) -> None:
        """Wait, for a limited time, until it is known whether agents can be started."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._known.wait(), FIRST_START)

    def leaving(self) -> None:
        """Report that the service is shutting down, and try no more starts."""
        self.readiness.draining = True
        self.health.leaving()
        self.agent.trial.hurry()

    # Whether a turn sent now could be served.

    async def _look(self) -> None:
        failing = await asyncio.to_thread(self.agent.machine.failing)
        self.readiness.checked(failing)
        if failing != self._failing:
            self._failing = failing
            self._try_now.set()
        self._publish()

    async def _try(self) -> None:
        if not self.readiness.start_due:
            self._pause = TRY_SOON
            return
        answered = await self._answers()
        self._known.set()
        self._pause = TRY_NEXT if answered else min(2 * self._pause, TRY_AGAIN)

    async def _wait_to_try(self) -> None:
        with suppress(TimeoutError):
            self._try_now.clear()
            await asyncio.wait_for(self._try_now.wait(), self._pause * random.uniform(0.8, 1.0))

    async def _answers(self) -> bool:
        """Try a start, report the result, and end the agent. Return True if it answered."""
        over = False
        try:
            await self.agent.trial.start()
            self.readiness.answered(tried=True)
            self._retire()
            over = True
        except SamovarError as error:
            self.readiness.failed(error)
            self._log_refused(error)
        except Exception:
            # The next one must be tried whatever happened to this one.
            _log.exception("defect", work="trial")
            defect = NoProcess("the start failed", cause="start-failed", retry_after=TRY_AGAIN)
            self.readiness.failed(defect)
        finally:
            self._publish()
            # What failed, or is cut off because the service ends, gets no time; but it is
            # ended, whatever becomes of us.
            end = self.background.spawn(self.agent.trial.end(hurry=not over), "end a trial")
            await asyncio.shield(end)
        return over

    def _retire(self) -> None:
        """Replace the processes of another CLI than the one that has just answered."""
        digest = self.agent.agents.cli.digest
        if digest != self._running:
            self._running = digest
            stopped, later = self.pool.drain(None, "", "outdated")
            version = self.agent.agents.version
            told = {"version": version, "stopped": stopped, "later": later}
            incident(self.recorder, "process.outdated", **told)

    async def _ask_store(self) -> None:
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await self.database.answer()
            self.readiness.store = True
        except (SamovarError, TimeoutError):
            self.readiness.store = False
        self._publish()

    async def _tell(self) -> None:
        self.readiness.audit = not self.trail.down
        self.readiness.quarantined = sum(p.state is ProcessState.QUARANTINED for p in self.pool)
        self._publish()

    async def _wait_to_tell(self) -> None:
        with suppress(TimeoutError):
            self.readiness.changed.clear()
            await asyncio.wait_for(self.readiness.changed.wait(), TELL_EVERY)

    def _publish(self) -> None:
        obstacles = self.readiness.obstacles()
        if STARTING not in obstacles:
            self._known.set()
        if obstacles != self._obstacles:
            self._log_change(obstacles)
            self._obstacles = obstacles
        self.health.serving(yes=not obstacles)
        self.pool.hold(self.readiness.refusal())

    def _log_change(self, obstacles: tuple[str, ...]) -> None:
        if not obstacles:
            _log.info("health.serving")
            return
        _log.warning("health.not_serving", obstacles=obstacles)
        if OUT_OF_DISK in obstacles and OUT_OF_DISK not in self._obstacles:
            incident(self.recorder, "disk.full")

    def _log_refused(self, error: SamovarError) -> None:
        """Log, at a limited rate, why no start can work until an operator acts."""
        now = asyncio.get_running_loop().time()
        if isinstance(error, Misconfigured) and now - self._refused_at >= REFUSED_EVERY:
            self._refused_at = now
            incident(self.recorder, "start.refused", error=repr(error))

    # Things that would pile up.

    async def _sweep(self) -> None:
        await asyncio.sleep(SWEEP_EVERY)
        handles = [process.handle for process in self.pool]
        if (tried := self.agent.trial.process) is not None:
            handles.append(tried)
        live = {process_tree.marker(self.server_id, handle.process_id) for handle in handles}
        spared = {handle.pid for handle in handles}
        if isinstance(self.agent.provider, Command):
            spared |= self.agent.provider.pids
        if killed := process_tree.sweep(self.strangers, live, spared):
            incident(self.recorder, "orphans.killed", killed=killed)

    async def _return_memory(self) -> None:
        await asyncio.sleep(TRIM_EVERY)
        await asyncio.to_thread(heap.trim)

    async def _expire(self) -> None:
        await asyncio.sleep(EXPIRE_EVERY)
        try:
            await self.sessions.close_expired()
        except SamovarError as error:
            _log.warning("sessions.not_expired", error=repr(error))

    async def _measure_homes(self) -> None:
        begin = asyncio.get_running_loop().time()
        await self.bounds.disk.run()
        self._measuring = asyncio.get_running_loop().time() - begin

    async def _wait_to_measure(self) -> None:
        # Many small files take long: not more than a twentieth of the time.
        await asyncio.sleep(max(MEASURE_EVERY, 20 * self._measuring))

    async def _count_processes(self) -> None:
        await self.bounds.processes.run()

    async def _look_at_credentials(self) -> None:
        # `_ask_store` reports a store that does not answer.
        with suppress(NoProcess):
            await self.revocation.look()

    async def _end_deleted(self) -> None:
        with suppress(NoProcess):  # as above
            await self.deleting.look()

    async def _look_at_certificates(self) -> None:
        # Handshakes look too, but without any a renewed certificate would seem about to expire.
        if self.certificates is not None:
            await asyncio.to_thread(self.certificates.look)

    async def _read_gauges(self) -> None:
        if self.recorder.exports_gauges:
            self.recorder.gauges_read(await self.gauges())
