"""What the core tells of a turn to whoever traces and counts.

Knows the core's words and telemetry's. Decides nothing.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from samovard.core.errors import Draining, NoProcess, SamovarError, TurnWithdrawn
from samovard.core.events import (
    Event,
    ToolResult,
    ToolUse,
    TurnFinished,
    TurnStarted,
    Usage,
    UsageUpdated,
)
from samovard.core.pool.states import State
from samovard.core.process import Launch
from samovard.telemetry.incidents import incident
from samovard.telemetry.observation import Observation, Spent, Tokens, Tool, Wait
from samovard.telemetry.start import Start

if TYPE_CHECKING:
    from samovard.core.pool.pooled_process import Lease, PooledProcess


def starting(launch: Launch, observation: Observation) -> Start:
    """Tells that a process is being started, and for which turn."""
    call = observation.call
    return Start(
        launch.process_id,
        launch.profile,
        launch.resume,
        call.stages,
        call.context,
        call.stages.now(),
    )


def started(process: "PooledProcess", error: SamovarError | None) -> Start:
    """Tells that the process is ready, or why it is not."""
    start = process.started
    start.end = start.stages.now()
    start.pid = process.handle.pid
    start.waited = process.handle.waited
    if error is not None:
        start.cause = error.cause or error.reason
    elif process.state is not State.STARTING:
        start.cause = "stopped"
    return start


def obstacle(process: "PooledProcess | None", *, others: bool) -> str:
    """Says in a word what a turn waits for; `others` of its session have not ended."""
    busy = process is not None and process.state is not State.STARTING
    return "session_busy" if busy or others else "no_slot"


def start_for(process: "PooledProcess | None") -> Start | None:
    """Gives the start of a process that has served no turn yet."""
    return process.started if process is not None and process.turns == 0 else None


def waited(
    observation: Observation, wait: Wait, start: Start | None, error: SamovarError | None
) -> None:
    """Tells that a turn has its process, or why it waits for none any more."""
    result = _wait_result(error)
    observation.waited(wait, start, result)
    if result in ("expired", "withdrawn"):
        incident(observation.recorder, f"waiter.{result}", **observation.ids, reason=wait.reason)


def leased(observation: Observation, lease: "Lease") -> None:
    """Tells which process the turn has."""
    process = lease.process
    observation.process_id = process.process_id
    observation.conversation = process.launch.agent_session
    observation.pid = process.handle.pid
    observation.epoch = lease.epoch
    observation.agent_version = process.handle.agent_version
    observation.start = process.started


def began(observation: Observation, started: TurnStarted) -> None:
    """Tells that the prompt is written."""
    observation.prompt_written = True
    observation.start_mode = started.start_mode.name.lower()


def noted(observation: Observation, events: Sequence[Event]) -> None:
    """Take note of when tools were called and returned, and of what each request used."""
    stages, tools = observation.call.stages, observation.tools
    for event in events:
        if isinstance(event, ToolUse):
            tools[event.tool_use_id] = Tool(event.tool_use_id, event.tool_name, stages.now())
        elif isinstance(event, ToolResult) and (tool := tools.get(event.tool_use_id)) is not None:
            tool.end, tool.failed = stages.now(), event.is_error
        elif isinstance(event, UsageUpdated):
            observation.requested(_tokens(event.usage))


def reported(observation: Observation, report: TurnFinished) -> None:
    """Tells what the agent reported."""
    observation.outcome = report.outcome.name.lower()
    observation.stop_reason = report.stop_reason
    observation.steps = report.agent_steps
    observation.failure_cause = report.failure_cause.word
    if report.upstream_status or observation.failure_text:
        incident(
            observation.recorder,
            "upstream.failed",
            **observation.ids,
            status=report.upstream_status,
            failure_cause=observation.failure_cause,
            said=observation.failure_text,
        )
    spent(observation, report.usage)
    observation.by_model = {
        model: Spent(_tokens(usage), usage.cost_usd)
        for model, usage in report.usage_by_model.items()
    }


def spent(observation: Observation, usage: Usage, *, estimated: bool = False) -> None:
    """Tells what the turn used: without a report that is an estimate."""
    observation.estimated = estimated
    observation.cost_usd = usage.cost_usd
    observation.tokens = _tokens(usage)


def judged(observation: Observation, events: int, error: SamovarError | None) -> None:
    """Note how the turn ended: with so many events, and with an error or without."""
    observation.events = events
    if error is not None:
        observation.reason, observation.cause = error.reason, error.cause
        observation.outcome = "lost" if observation.prompt_written else ""


def _tokens(usage: Usage) -> Tokens:
    return Tokens(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
    )


def _wait_result(error: SamovarError | None) -> str:
    """Says in a word how a wait for a process ended."""
    if error is None:
        return "granted"
    if isinstance(error, NoProcess) and error.cause == "saturated":
        return "expired"
    return "withdrawn" if isinstance(error, (TurnWithdrawn, Draining)) else "failed"
