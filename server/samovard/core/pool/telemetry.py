"""What is reported of a process: its start, and which turn it serves.

Knows the core's words and telemetry's. Decides nothing.
"""

from samovard.core.errors import SamovarError
from samovard.core.pool.pooled_process import Lease, PooledProcess
from samovard.core.pool.states import ProcessState
from samovard.core.process import Launch
from samovard.telemetry.facts import StartFacts, TurnFacts
from samovard.telemetry.incidents import IncidentCounter, incident


def starting(launch: Launch, facts: TurnFacts) -> StartFacts:
    """Tells that a process is being started, and for which turn."""
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
    """Tells that the process is ready, or why it is not."""
    start = process.started
    start.end = start.stages.now()
    start.pid = process.handle.pid
    start.waited = process.handle.waited
    if error is not None:
        start.cause = error.cause or error.reason
    elif process.state is not ProcessState.STARTING:
        start.cause = "stopped"
    return start


def obstacle(process: PooledProcess | None, *, others: bool) -> str:
    """Says in a word what a turn waits for; `others` of its session have not ended."""
    busy = process is not None and process.state is not ProcessState.STARTING
    return "session_busy" if busy or others else "no_slot"


def start_for(process: PooledProcess | None) -> StartFacts | None:
    """Gives the start of a process that has served no turn yet."""
    return process.started if process is not None and process.turns == 0 else None


def leased(facts: TurnFacts, lease: Lease) -> None:
    """Tells which process the turn has."""
    process = lease.process
    facts.process_id = process.process_id
    facts.conversation = process.launch.agent_session
    facts.pid = process.handle.pid
    facts.epoch = lease.epoch
    facts.agent_version = process.handle.agent_version
    facts.start = process.started


def stalled(process: PooledProcess, recorder: IncidentCounter, phase: str, seconds: float) -> None:
    """Report a turn that did not get on, with what the kernel says of its process."""
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
