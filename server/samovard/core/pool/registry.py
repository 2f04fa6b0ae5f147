"""The registry of the pool's processes, and the only place where a process changes its state.

The registry decides nothing and starts nothing.
"""

from collections.abc import Callable, Iterator

import structlog

from samovard.core.errors import Internal, NoProcess, QuotaExceeded, SamovarError, TranscriptLost
from samovard.core.pool.circuit_breaker import CircuitBreakers
from samovard.core.pool.counters import Counters
from samovard.core.pool.placement import Mode, ProcessView, View
from samovard.core.pool.pooled_process import PooledProcess
from samovard.core.pool.queue import PoolLimits, Queue
from samovard.core.pool.states import TRANSITIONS, ProcessState
from samovard.core.process import Broken, Exit, Launch
from samovard.core.records import SessionKey
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

_BROKEN = {
    Broken.UNPARSABLE: "frame.unparsable",
    Broken.FOREIGN: "frame.foreign",
    Broken.LINE_TOO_LONG: "frame.too_long",
    Broken.STALLED: "turn.stalled",
}

_log = structlog.get_logger("samovard.pool")


class Registry:
    """The live processes: at most one for each session. It may be changed while it is iterated.

    `clock` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], recorder: Recorder) -> None:
        self.clock = clock
        self._recorder = recorder
        self._processes: dict[SessionKey, PooledProcess] = {}
        self.counters = Counters()
        self.breakers = CircuitBreakers(clock)

    def __repr__(self) -> str:
        states: dict[str, int] = {}
        for process in self._processes.values():
            states[process.state.value] = states.get(process.state.value, 0) + 1
        return " ".join(f"{state}={count}" for state, count in sorted(states.items())) or "empty"

    def __iter__(self) -> Iterator[PooledProcess]:
        return iter(list(self._processes.values()))

    def __len__(self) -> int:
        return len(self._processes)

    def of(self, key: SessionKey) -> PooledProcess | None:
        """Return the session's process in any state, or None."""
        return self._processes.get(key)

    def idles(self, key: SessionKey) -> bool:
        """True if the session's process waits for a turn."""
        process = self._processes.get(key)
        return process is not None and process.state is ProcessState.IDLE

    def barred(self, launch: Launch) -> NoProcess | None:
        """Return the error if the launch's session may have no start now, or None."""
        return self.breakers.refusal(launch.home)

    def of_profile(self, tenant: str | None, profile: str) -> list[PooledProcess]:
        """Return the processes of a tenant (None: all) with a profile (empty: any)."""
        found = [p for p in self if tenant in (None, p.key.tenant)]
        return [p for p in found if profile in ("", p.launch.profile)]

    def room(self, queue: Queue, tenant: str) -> bool:
        """True if a slot is left for a tenant once every waiter without a process has got one."""
        homeless = [waiter.key.tenant for waiter in queue if self.of(waiter.key) is None]
        left = len(self) + len(homeless) < queue.limits.slots
        return left and not self.crowded(queue.limits, tenant, homeless.count(tenant))

    def crowded(self, limits: PoolLimits, tenant: str, more: int = 0) -> bool:
        """True if a tenant, with so many processes more, has as many as it may."""
        most = limits.tenant(tenant).processes
        return most is not None and len(self.of_profile(tenant, "")) + more >= most

    def overdue(self, queue: Queue, tenant: str) -> SamovarError:
        """Return the error for a turn of a tenant that has waited for as long as it may."""
        if (held := queue.held(tenant)) is not None:
            return held
        if not self.crowded(queue.limits, tenant):
            return NoProcess("no process came free in time", cause="saturated", retry_after=1.0)
        message = "the tenant has as many processes as it may"
        return QuotaExceeded(f"tenant:{tenant}", message, cause="processes", retry_after=1.0)

    def runs(self, tenant: str) -> bool:
        """True if a process of the tenant has a turn."""
        return any(p.lease is not None for p in self if p.key.tenant == tenant)

    def by_id(self) -> dict[str, PooledProcess]:
        """Return the processes by process id."""
        return {process.process_id: process for process in self._processes.values()}

    def view(self, mode: Mode, limits: PoolLimits, queue: Queue, *, starts: bool) -> View:
        """Return the pool as placement sees it."""
        waiting = queue.sessions()
        bounds = {tenant: limits.tenant(tenant).processes for tenant, _ in waiting}
        return View(
            now=self.clock(),
            mode=mode,
            slots=limits.slots,
            max_starting=limits.max_starting,
            idle_ttl=limits.idle_ttl,
            waiting=waiting,
            processes=[
                ProcessView(p.launch.process_id, p.key, p.state, p.since)
                for p in self._processes.values()
            ],
            starts=starts,
            reserve=limits.kept_slots if len(queue.shares) > 1 else 0,
            most={tenant: most for tenant, most in bounds.items() if most is not None},
        )

    def add(self, process: PooledProcess) -> None:
        """Add the process of a session, which must not have another one."""
        self._processes[process.key] = process

    def remove(self, process: PooledProcess) -> None:
        """Remove a process that is gone with all its descendants."""
        self._processes.pop(process.key, None)

    def move(self, process: PooledProcess, state: ProcessState, cause: str) -> None:
        """Change the state of a process, log the change and count it.

        Raise `Internal` if the state machine has no such transition.
        """
        if state not in TRANSITIONS[process.state]:
            raise Internal(f"a process cannot go from {process.state.name} to {state.name}")
        moved = {"from": process.state.value, "to": state.value, "cause": cause}
        _log.debug("process.moved", **process.ids, epoch=process.epoch, **moved)
        self._recorder.process_moved(process.state.value, state.value, cause)
        now = self.clock()
        counters = process.counters
        # `enter` comes last: the counters depend on the previous state and its duration.
        if state is ProcessState.RUNNING:
            counters.began(first=process.turns == 1, resumed=process.launch.resume)
        elif state is ProcessState.STOPPING:
            counters.stopped(process.state, cause)
        elif state is ProcessState.EXITED:
            counters.exited(process.state)
        elif process.state is ProcessState.STARTING:  # the only state left to go to is IDLE
            counters.started(now - process.since)
        process.enter(state, now)

    def tell(self, process: PooledProcess, event: str, **fields: object) -> None:
        """Report an incident with a process."""
        incident(self._recorder, event, **process.ids, **fields)

    def exited(self, process: PooledProcess, exit: Exit) -> None:
        """Report and count a process that exited without being stopped."""
        if exit.cut:
            self.tell(process, "frame.truncated", size=exit.cut)
        state = process.state.value
        self.tell(process, "process.exited", state=state, exit=str(exit), stderr=exit.stderr)
        if process.state is not ProcessState.STARTING:  # else `start_failed` counts it
            self._count_end(process)

    def start_failed(self, process: PooledProcess, error: SamovarError) -> None:
        """Report why a process did not start, and count it if it ended by itself."""
        lost = isinstance(error, TranscriptLost)
        missing = "transcript.lost" if process.launch.seen else "session.started_over"
        event = missing if lost else "start.failed"
        self.tell(process, event, error=repr(error))
        # A start that was refused or timed out is no crash: the process is then stopped.
        if process.state is ProcessState.EXITED and not lost:
            self._count_end(process)

    def _count_end(self, process: PooledProcess) -> None:
        """Count a process that ended by itself, in the circuit breaker of its session."""
        seconds = self.breakers.ended(process.launch.home, self.clock() - process.created)
        if seconds:
            self.tell(process, "breaker.opened", seconds=seconds)

    def broke(self, process: PooledProcess, how: Broken) -> None:
        """Report how a process broke the protocol: frames of another session concern security."""
        if how is Broken.FOREIGN:
            tenant, session = process.key
            self.drop(process, "foreign", 1)
            self.tell(process, _BROKEN[how], security=True, tenant=tenant, session=session)
        else:
            self.tell(process, _BROKEN[how])

    def drop(self, process: PooledProcess, reason: str, count: int) -> None:
        """Count discarded lines of a process, and report the first unsolicited one."""
        self._recorder.frames_dropped(reason, count)
        # Only the first one: an agent that goes on would flood the log.
        if reason == "unsolicited" and not process.unasked:
            process.unasked = True
            self.tell(process, "frame.unsolicited", state=process.state.value)
