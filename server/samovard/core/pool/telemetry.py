"""Telemetry of a process: its start, and the turn that it serves.

These functions translate the core's terms into those of telemetry. They decide nothing.
"""

from samovard.core.errors import SamovarError
from samovard.core.pool.pooled_process import Lease, PooledProcess
from samovard.core.pool.states import ProcessState
from samovard.core.process import Launch
from samovard.telemetry.facts import StartFacts, TurnFacts
from samovard.telemetry.incidents import IncidentCounter, incident


def starting(launch: Launch, facts: TurnFacts) -> StartFacts:
    """Return the facts of a start that begins now, for the turn with the given facts."""
    call = facts.call
    return StartFacts(
        launch.process_id,
        launch.profile,
        launch.resume,
        call.stages,
        call.context,
        call.stages.now(),
    )


def started(process: PooledProcess, error: SamovarError | None) -> StartFacts:
    """Complete and return the facts of a start that has just succeeded or failed."""
    start = process.started
    start.end = start.stages.now()
    start.pid = process.handle.pid
    start.waited = process.handle.waited
    if error is not None:
        start.cause = error.cause or error.reason
    # The start succeeded, but the process was told to stop or exited meanwhile.
    elif process.state is not ProcessState.STARTING:
        start.cause = "stopped"
    return start


def obstacle(process: PooledProcess | None, *, others: bool) -> str:
    """Return the name of what a turn waits for.

    `others` is True if other turns of its session have not ended.
    """
    # A starting process counts as a missing slot: in both cases the turn waits for a start.
    busy = process is not None and process.state is not ProcessState.STARTING
    return "session_busy" if busy or others else "no_slot"


def start_for(process: PooledProcess | None) -> StartFacts | None:
    """Return the start of a process that has served no turn yet, or None."""
    return process.started if process is not None and process.turns == 0 else None


def leased(facts: TurnFacts, lease: Lease) -> None:
    """Record the process that a turn was granted."""
    process = lease.process
    facts.process_id = process.process_id
    facts.conversation = process.launch.agent_session
    facts.pid = process.handle.pid
    facts.epoch = lease.epoch
    facts.agent_version = process.handle.agent_version
    facts.start = process.started


def stalled(process: PooledProcess, recorder: IncidentCounter, phase: str, seconds: float) -> None:
    """Report a turn that made no progress for `seconds`, with the kernel's view of its process."""
    condition = process.handle.condition()
    incident(
        recorder,
        "turn.stalled",
        **process.ids,
        phase=phase,
        seconds=round(seconds, 3),
        state=condition.state,
        wait_channel=condition.wait_channel,
    )
