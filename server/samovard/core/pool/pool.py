"""The processes of all tenants: who waits for one, who holds one, and what becomes of each.

The life of a waiter. A turn asks with `request`. If its session's process is idle, the waiter
is granted in the same step. If not, it stands in the queue, and `pump` decides what to do:
`placement`, a pure function, sees the pool at this moment and says whom to start, stop, grant or
refuse. A start, an interrupt, a stop is carried out by the supervisor, in the background, which
tells of its outcome (`on_started`, `on_proven`, `on_reaped`, ...); each outcome pumps again. So a
waiter ends in one of four ways, each in one step: granted, refused, withdrawn by its turn, or
drained. Its lease, a future, is completed in that step (invariant 7).

Every method here is a plain function: between the look at a state and its change nothing else
runs, and no wakeup is lost (6). Keep it so: behind an `await` nothing that was looked at holds.

The trap: what is told while the pool pumps may ask it for something again. `pump` does not enter
itself; the loop that runs decides once more. And a place is free when its process is reaped, once
(11): to count a process as gone that is told to stop makes more of them than slots.

Knows nothing of turns' contents, of stores or of how a process works.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Self

from samovard.core.errors import Draining, NoProcess, SamovarError, TranscriptLost
from samovard.core.pool import placement, telemetry
from samovard.core.pool.background import BackgroundWork
from samovard.core.pool.listeners import PoolListener, StartListener
from samovard.core.pool.placement import Mode, View
from samovard.core.pool.pooled_process import Lease, PooledProcess, turn_lost
from samovard.core.pool.queue import PoolLimits, Queue, Waiter
from samovard.core.pool.registry import Registry
from samovard.core.pool.states import BUSY, SUSPECT, TRANSITIONS, ProcessState
from samovard.core.pool.supervisor import Supervisor
from samovard.core.process import Agents, Broken, Exit
from samovard.core.records import SessionKey
from samovard.telemetry.recorder import NULL_RECORDER, Recorder


class Pool:
    """A pool of agent processes, keyed by tenant and session.

    An async context manager: leaving it stops every process. `BackgroundWork` waits for them.
    """

    def __init__(
        self,
        agents: Agents,
        limits: PoolLimits,
        *,
        clock: Callable[[], float],
        background: BackgroundWork,
        listener: PoolListener,
        starts: StartListener,
        recorder: Recorder = NULL_RECORDER,
    ) -> None:
        self._agents = agents
        self.limits = limits
        self.queue = Queue(limits)
        self.clock = clock
        self._registry = Registry(clock, recorder)
        self.counters, self.breakers = self._registry.counters, self._registry.breakers
        self._listener = listener
        self._starts = starts
        self._background = background
        self._supervisor = Supervisor(agents, self._registry, background, recorder, self)
        self._mode = Mode.RUNNING
        self._timer: asyncio.TimerHandle | None = None
        self._pumping = False
        self._refusal: SamovarError | None = None  # why nothing can be started

    def __repr__(self) -> str:
        return f"<Pool {self._mode.name} waiting={len(self.queue)} {self._registry!r}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        self.kill()

    def __iter__(self) -> Iterator[PooledProcess]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)

    @property
    def waiting(self) -> int:
        """How many turns wait for a process."""
        return len(self.queue)

    @property
    def waiters(self) -> list[Waiter]:
        """The turns that wait, grouped by tenant."""
        return list(self.queue)

    @property
    def closing(self) -> bool:
        """True once the pool has stopped accepting turns."""
        return self._mode is Mode.CLOSING

    def process_of(self, key: SessionKey) -> PooledProcess | None:
        """Return the process of a session, whatever its state, or None."""
        return self._registry.of(key)

    # Called by turns and operators.

    def request(self, waiter: Waiter, *, first: bool = False) -> None:
        """Queue a turn for its session's process; `waiter.lease` is completed now or later.

        Raise `Draining`, `QueueFull` if too many turns of its tenant wait, or `NoProcess`:
        other-tenant and saturated as `Queue.add` does, crash-loop if the breaker forbids the
        start that is needed.
        """
        if self._mode is not Mode.RUNNING:
            raise Draining
        process = self._registry.of(waiter.key)
        if process is None and (refusal := self._registry.barred(waiter.launch())) is not None:
            raise refusal  # before anything is evicted for it
        ready = self.queue.serves(waiter.key.tenant) and self._registry.idles(waiter.key)
        room = self._registry.room(self.queue, waiter.key.tenant)
        self.queue.add(waiter, self._registry.runs, room=room, first=first or ready)
        if process is not None and ready:
            self._grant(process)  # without `pump`: no other session is affected
        else:
            self.pump()
        if not waiter.lease.done():
            waiter.count(self.counters, self.clock, again=first)

    def withdraw(self, waiter: Waiter, error: SamovarError) -> None:
        """Complete a waiter's lease with an error. A turn that holds its lease keeps it."""
        self.queue.remove(waiter)
        if not waiter.lease.done():
            waiter.lease.set_exception(error)
        if (process := self._registry.of(waiter.key)) is not None:
            self._give_up_if_unwanted(process)
        self.pump()

    def expire(self, waiter: Waiter) -> None:
        """Refuse a turn that has waited as long as it may."""
        self.withdraw(waiter, self._registry.overdue(self.queue, waiter.key.tenant))

    def run(self, lease: Lease) -> None:
        """Called when the first byte of the lease's prompt was written."""
        process = lease.process
        process.turns += 1
        process.kept = True
        if lease.valid:
            self._registry.move(process, ProcessState.RUNNING, "prompt-written")
        else:  # the process is stopping and took the prompt all the same
            process.counters.began(first=process.turns == 1, resumed=process.launch.resume)
            lease.turn.lose(turn_lost(lease, "process-died"))

    def give_back(self, lease: Lease) -> None:
        """Take back a lease whose prompt was not written, and reuse its process."""
        process = lease.process
        if lease.valid:
            process.lease = None
            self._registry.tell(process, "lease.unused")
            if process.unasked:  # unsolicited work: it is not quiet
                self._supervisor.settle(process, "unsolicited")
            else:
                self._rest(process, "lease-unused")
            self._give_up_if_unwanted(process)
        self.pump()

    def interrupt(self, lease: Lease) -> bool:
        """Tell the agent to stop the lease's turn. Return True if this call was the first.

        The process is reused if it is proven quiet. Otherwise it is stopped, and the turn is
        lost if it has no report by then.
        """
        if not lease.valid or lease.process.state is not ProcessState.RUNNING:
            return False
        self._supervisor.interrupt(lease)
        return True

    def stop(self, process: PooledProcess, cause: str) -> None:
        """Stop a process in any state. A turn that it runs is lost with the given cause."""
        process.lose_turn(cause)  # before the state changes, which it checks
        self._stop(process, cause)
        self.pump()

    def drain(self, tenant: str | None, profile: str, why: str = "replaced") -> tuple[int, int]:
        """Replace the processes of a tenant (None: all), of a profile (empty: all). Idempotent.

        Return how many are told to stop now, and how many when their turn ends.
        """
        before = self._registry.of_profile(tenant, profile)
        stop = [p for p in before if p.state in (ProcessState.STARTING, ProcessState.IDLE)]
        busy = [p for p in before if p.state in BUSY]
        for process in stop:
            self._stop(process, why)
        for process in busy:
            process.outdated = why
        self.pump()
        return len(stop), len(busy)

    def hold(self, refusal: SamovarError | None) -> None:
        """Start no process from now on, and refuse turns that need a start. None: start again.

        Idle processes are kept in the meantime.
        """
        if refusal is not None or self._refusal is not None:
            self._refusal = refusal
            self.pump()

    # Called by PooledProcess only.

    def on_quiet(self, process: PooledProcess) -> None:
        """Make a process idle that was running or settling."""
        if process.state in (ProcessState.RUNNING, ProcessState.SETTLING):
            process.lease = None
            self._rest(process, "quiet")
            # If no turn waits, only its TTL matters, and a timer that is set fires before that.
            if self.queue or self._timer is None or self._mode is not Mode.RUNNING:
                self.pump()

    def on_finished(self, process: PooledProcess) -> None:
        """Wait for the end frame after a result, for at most 2 s."""
        if process.state is ProcessState.RUNNING:
            self._supervisor.settle(process, "finished")

    def on_unsolicited(self, process: PooledProcess, frames: int) -> None:
        """Count unsolicited frames, and do not grant the process while it works."""
        self._registry.drop(process, "unsolicited", frames)
        if process.state is ProcessState.IDLE:
            self._supervisor.settle(process, "unsolicited")

    def on_noise(self, process: PooledProcess, lines: int) -> None:
        """Count lines that are not frames."""
        self._registry.drop(process, "noise", lines)

    def on_broken(self, process: PooledProcess, how: Broken) -> None:
        """Kill a process that broke the protocol. A foreign frame also blocks its session."""
        process.handle.kill()
        self._registry.broke(process, how)
        if how is Broken.FOREIGN:
            self._listener.on_foreign(process.key)
        self._stop(process, how.value)
        self.pump()

    def on_exit(self, process: PooledProcess, exit: Exit) -> None:
        """Reap a process whose main process has exited; a turn that it ran is lost."""
        stopping = process.state in (ProcessState.STOPPING, ProcessState.QUARANTINED)
        if not stopping:
            self._registry.exited(process, exit)
        starting = process.state is ProcessState.STARTING
        process.lose_turn("process-died", exit=str(exit))  # before `move`: it checks the state
        self._registry.move(process, ProcessState.EXITED, str(exit))
        # While it starts, the start itself fails with the reason and reaps the process.
        if not starting:
            self._supervisor.end(process, "reap")

    # Shutting down.

    def close(self) -> None:
        """Reject waiting and new turns, and stop idle and starting processes."""
        self._mode = Mode.CLOSING  # first: `withdraw` pumps, and must not grant or start
        for waiter in self.queue:
            self.withdraw(waiter, Draining())
        for process in self:
            if process.state is ProcessState.STARTING:
                self._stop(process, "drained")
        self.pump()

    def kill(self) -> None:
        """Stop every process that is not stopping yet. Running turns are lost."""
        for process in self:
            if ProcessState.STOPPING in TRANSITIONS[process.state]:
                self.stop(process, "drained")

    def abandon(self) -> int:
        """Cancel all background work. Return how many processes have not exited."""
        for process in self:
            self._registry.tell(process, "process.abandoned", pid=process.handle.pid)
        self._background.abandon()
        return len(self)

    # Placement.

    def pump(self) -> None:
        """Decide and carry out until there is nothing left to decide. Idempotent."""
        if not self._pumping:
            self._pumping = True
            try:
                while decision := placement.decide(self._view()):
                    self._carry_out(decision)
                self._wake_at(decision.wake_at)
            finally:
                self._pumping = False

    def _view(self) -> View:
        return self._registry.view(self._mode, self.limits, self.queue, starts=not self._refusal)

    def _carry_out(self, decision: placement.Decision) -> None:
        by_id = self._registry.by_id()
        for process_id in decision.grant:
            self._grant(by_id[process_id])
        for key in decision.start:
            self._start(key)
        for key in decision.refuse:
            assert self._refusal is not None
            self.queue.refuse(key, self._refusal)
        for process_id, cause in decision.stop:
            self._stop(by_id[process_id], cause)

    def _grant(self, process: PooledProcess) -> None:
        waiter = self.queue.of(process.key)[0]
        process.charge = self.queue.served(waiter, self.clock())
        process.epoch += 1  # before `lend`, which numbers the lease
        lease = process.lend(waiter.turn)
        self._registry.move(process, ProcessState.LEASED, "granted")
        waiter.lease.set_result(lease)

    def _start(self, key: SessionKey) -> None:
        waiter = self.queue.of(key)[0]
        launch = waiter.launch()
        if (refusal := self._registry.barred(launch)) is not None:
            self.queue.refuse(key, refusal)
            return
        process = PooledProcess(
            agents=self._agents,
            listener=self,
            key=key,
            launch=launch,
            started=telemetry.starting(launch, waiter.turn.facts),
            counters=self.counters.of(key.tenant, launch.profile),
            kept=waiter.kept(),
            since=self.clock(),
        )
        self._registry.add(process)
        self._supervisor.start(process)

    def _stop(self, process: PooledProcess, cause: str) -> None:
        if ProcessState.STOPPING in TRANSITIONS[process.state]:
            process.suspect = process.state in SUSPECT  # before `move` changes the state
            self._registry.move(process, ProcessState.STOPPING, cause)
            self._supervisor.end(process, "stop")

    def _rest(self, process: PooledProcess, cause: str) -> None:
        """Make a process idle whose turn has ended, or stop it if it is to be replaced."""
        self._registry.move(process, ProcessState.IDLE, cause)
        if process.outdated:
            self._stop(process, process.outdated)

    def _give_up_if_unwanted(self, process: PooledProcess) -> None:
        """Stop a process of a session that was never created and has no waiting turns."""
        unused = process.state in (ProcessState.STARTING, ProcessState.IDLE) and not process.kept
        if unused and not self.queue.of(process.key):
            self._stop(process, "unwanted")

    def _wake_at(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if when is not None:
            loop, delay = asyncio.get_running_loop(), max(when - self.clock(), 0.0)
            self._timer = loop.call_later(delay, self.pump)

    # Called by Supervisor only.

    def on_started(self, process: PooledProcess, error: SamovarError | None) -> None:
        """Make a ready process idle, or refuse the turns that wait for it with the error."""
        if error is None and process.state is ProcessState.STARTING:
            self._registry.move(process, ProcessState.IDLE, "ready")
            self._starts.on_start(process.key, None)
            self._give_up_if_unwanted(process)
        elif process.state is ProcessState.STARTING:
            self._start_failed(process, error)
            self._stop(process, "start-failed")
        elif not process.ending:  # it ended by itself: its waiting turns fail, and may be retried
            self._start_failed(process, error)
            self._supervisor.end(process, "reap")
        self.pump()

    def _start_failed(self, process: PooledProcess, error: SamovarError | None) -> None:
        died = NoProcess("the agent ended at once", cause="start-failed", retry_after=1.0)
        error = error or died
        self._registry.start_failed(process, error)
        self.queue.refuse(process.key, error)
        if error.cause == "out-of-descriptors":  # of which idle processes hold some
            self._carry_out(placement.relief(self._view()))
        if not isinstance(error, TranscriptLost):  # which says nothing about agents
            self._starts.on_start(process.key, error)

    def on_proven(self, process: PooledProcess) -> None:
        """Make an interrupted process idle, which is proven quiet."""
        self._rest(process, "quiet")
        self.pump()

    def on_unproven(self, process: PooledProcess) -> None:
        """Stop a process that may still be working."""
        self.stop(process, "unproven")

    def on_reaped(self, process: PooledProcess) -> None:
        """Use the slot of a process that is gone."""
        self._listener.on_reaped(process.key)
        self.pump()
