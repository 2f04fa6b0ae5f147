"""A process in the pool, and the lease that lets one turn use it.

The pooled process receives what the agent process reports. It passes events to the turn and
everything else to the pool, and decides nothing.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from samovard.core.errors import ProtocolViolated, SamovarError, TurnLost
from samovard.core.events import Event, StartMode, TurnFinished, TurnStarted
from samovard.core.pool.counters import PoolCounters
from samovard.core.pool.shares import Charge
from samovard.core.pool.states import BUSY, ProcessState
from samovard.core.process import Agents, Broken, Doing, Exit, Launch, Process
from samovard.core.records import SessionKey
from samovard.core.turn.turn import Turn
from samovard.telemetry.facts import StartFacts
from samovard.telemetry.redaction import error_text

UNAUTHORIZED = 401  # HTTP status: the model's API rejected the credential
_LOST = (Broken.LINE_TOO_LONG, Broken.STALLED)


@dataclass(frozen=True, slots=True, eq=False)
class Lease:
    """The right of one turn to use one process. `epoch` counts the leases of the process."""

    process: "PooledProcess"
    epoch: int
    turn: Turn

    @property
    def valid(self) -> bool:
        """True while the lease holds its process."""
        return self.process.lease is self

    def turn_started(self) -> TurnStarted:
        """Return the turn's first event, for a prompt that was just written."""
        process = self.process
        # `turns` includes this turn, which `Pool.run` has counted.
        cold = StartMode.RESUMED if process.launch.resume else StartMode.COLD
        return TurnStarted(
            session_id=self.turn.key.session,
            turn_id=self.turn.turn_id,
            start_mode=cold if process.turns == 1 else StartMode.WARM,
            process_id=process.process_id,
            pid=process.handle.pid,
            process_turn=process.turns,
        )


class Listener(Protocol):
    """The pool, as its processes see it. The methods must return at once and not raise."""

    def on_finished(self, process: "PooledProcess") -> None:
        """Called when the agent has reported the result of its turn."""

    def on_quiet(self, process: "PooledProcess") -> None:
        """Called when the process is proven quiet after a turn or unsolicited work."""

    def on_unsolicited(self, process: "PooledProcess", frames: int) -> None:
        """Called with the number of frames that no turn asked for."""

    def on_noise(self, process: "PooledProcess", lines: int) -> None:
        """Called with the number of lines that are not frames."""

    def on_broken(self, process: "PooledProcess", how: Broken) -> None:
        """Called when the process broke the protocol."""

    def on_exit(self, process: "PooledProcess", exit: Exit) -> None:
        """Called when the main process has exited."""


class PooledProcess:
    """The pool's record of one process, which belongs to one session for its whole life."""

    def __init__(
        self,
        *,
        agents: Agents,
        listener: Listener,
        key: SessionKey,
        launch: Launch,
        started: StartFacts,
        counters: PoolCounters,
        kept: bool,
        since: float,
    ) -> None:
        self._listener = listener
        self.key = key
        self.launch = launch
        self.process_id = launch.process_id
        #: The log fields that identify it and its turn, at first the turn that it starts for.
        self.ids = {"process_id": launch.process_id, **started.stages.ids}
        self.started = started
        self.counters = counters
        self.kept = kept  # its session is stored, so it is kept even if unused
        self.handle: Process = agents.create(launch, self)
        self.state = ProcessState.STARTING
        self.since = since  # when it entered its state, in seconds of the pool's clock
        self.created = since
        self.timer: asyncio.TimerHandle | None = None  # of its present state
        self.epoch = 0
        self.turns = 0
        self.suspect = False  # was working when it was stopped
        self.outdated = ""  # the cause if it is to be replaced when its turn has ended
        self.ending = False  # the supervisor stops and reaps it
        self.survives = False  # was killed and did not exit in time
        self.unasked = False  # has done unsolicited work since it was idle
        self.lease: Lease | None = None
        self.charge: Charge | None = None  # for the turn in its slot, until it leaves it
        self.reaped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return (
            f"<Process {self.process_id} {self.state.name} pid={self.handle.pid} "
            f"turns={self.turns}>"
        )

    def enter(self, state: ProcessState, now: float) -> None:
        """Set the state. Only `Registry.move` may call it."""
        if self.charge is not None and state not in BUSY:
            self.charge.settle(now, began=self.state is not ProcessState.LEASED)
            self.charge = None
        self.state = state
        if state is ProcessState.IDLE:
            self.ids, self.unasked = {"process_id": self.process_id}, False
        self.since = now
        # The timer belongs to the previous state and must not fire in the new one.
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def lend(self, turn: Turn) -> Lease:
        """Create and return a turn's lease. The caller must change the state of the process."""
        self.lease = Lease(self, self.epoch, turn)
        self.ids = {"process_id": self.process_id, **turn.facts.ids}
        return self.lease

    def lose_turn(self, cause: str, exit: str = "") -> None:
        """End the lease. If the prompt was written and there is no report, the turn is lost."""
        if self.lease is not None:
            self._end_lease(turn_lost(self.lease, cause, exit))

    def _end_lease(self, error: SamovarError) -> None:
        lease, self.lease = self.lease, None
        # In LEASED the prompt is not written: the runner sees an invalid lease and tries again.
        if lease is not None and self.state is not ProcessState.LEASED:
            lease.turn.facts.traced = self.handle.traced
            lease.turn.lose(error)

    # What the process says.

    def on_events(self, events: Sequence[Event], size: int, *, last: bool = False) -> None:
        """Pass events to the turn that holds the lease; without a lease, discard them."""
        if self.lease is not None:
            turn = self.lease.turn
            # Most agents do not ask: scanning their thousands of events a second is wasted time.
            told = turn.permissions.take(events) if self.launch.ask else events
            turn.append(told, size, more=last)

    def on_activity(self, doing: Doing, *, progress: bool, waits: float, steps: int) -> None:
        """Pass the activity to the turn's watchdog, and the number of steps to its limits."""
        if self.lease is not None:
            turn = self.lease.turn
            if turn.watchdog is not None:
                turn.watchdog.see(doing, progress=progress, waits=waits)
            turn.limit_guard.on_steps(steps)

    def on_cost(self, usd: float) -> None:
        """Pass the cost, in US dollars, to the limits of the turn."""
        if self.lease is not None:
            self.lease.turn.limit_guard.on_cost(usd)

    def on_finished(self, finished: TurnFinished, said: str = "") -> None:
        """Pass the agent's report to the turn, and its text to telemetry."""
        if finished.upstream_status == UNAUTHORIZED:
            # An agent reads its credential only at its start, so the process must be replaced.
            self.outdated = self.outdated or "outdated"
        if self.lease is not None:
            # Not after the turn is stored: the process may serve the next turn by then.
            self.lease.turn.facts.traced = self.handle.traced
            self.lease.turn.facts.failure_text = error_text(said)
            self.lease.turn.finish(finished)
        self._listener.on_finished(self)

    def on_already_run(self) -> None:
        """Lose a turn that the agent's transcript has but the store had not."""
        if self.lease is not None:
            metadata = {"turnId": self.lease.turn.turn_id}
            self.lease.turn.lose(TurnLost(cause="already-run", metadata=metadata))

    def on_quiet(self) -> None:
        """Tell the pool that the process is proven quiet."""
        self.unasked = False
        self._listener.on_quiet(self)

    def on_unsolicited(self, frames: int) -> None:
        """Tell the pool of unsolicited frames."""
        self._listener.on_unsolicited(self, frames)

    def on_noise(self, lines: int) -> None:
        """Tell the pool of lines that are not frames."""
        self._listener.on_noise(self, lines)

    def on_broken(self, how: Broken) -> None:
        """End the turn with the error for this violation of the protocol, and tell the pool."""
        if how in _LOST:
            self.lose_turn(how.value)
        else:
            self._end_lease(ProtocolViolated())
        self._listener.on_broken(self, how)

    def on_exit(self, exit: Exit) -> None:
        """Tell the pool that the main process has exited."""
        self._listener.on_exit(self, exit)


def turn_lost(lease: Lease, cause: str, exit: str = "") -> TurnLost:
    """Return the error for a turn whose outcome is unknown."""
    metadata = {"turnId": lease.turn.turn_id, "processId": lease.process.process_id}
    if exit:
        metadata["exit"] = exit
    metadata["lastSequence"] = str(lease.turn.last_sequence)
    return TurnLost(cause, metadata)
