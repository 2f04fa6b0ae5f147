"""Telemetry of a turn, for traces, metrics and logs.

These functions translate the core's objects into telemetry's. They decide nothing.
"""

from collections.abc import Sequence

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
from samovard.telemetry.facts import Spent, StartFacts, Tokens, Tool, TurnFacts, Wait
from samovard.telemetry.incidents import incident


def waited(
    facts: TurnFacts, wait: Wait, start: StartFacts | None, error: SamovarError | None
) -> None:
    """Record that a turn's wait for a process ended, with an error or without."""
    result = _wait_result(error)
    facts.waited(wait, start, result)
    # A failed start is not reported here, because the registry has reported it.
    if result in ("expired", "withdrawn"):
        incident(facts.recorder, f"waiter.{result}", **facts.ids, reason=wait.reason)


def began(facts: TurnFacts, started: TurnStarted) -> None:
    """Record that the prompt was written."""
    facts.prompt_written = True
    facts.start_mode = started.start_mode.name.lower()


def noted(facts: TurnFacts, events: Sequence[Event]) -> None:
    """Record when tools were called and returned, and the usage of each request."""
    stages, tools = facts.call.stages, facts.tools
    for event in events:
        if isinstance(event, ToolUse):
            tools[event.tool_use_id] = Tool(event.tool_use_id, event.tool_name, stages.now())
        elif isinstance(event, ToolResult) and (tool := tools.get(event.tool_use_id)) is not None:
            tool.end, tool.failed = stages.now(), event.is_error
        elif isinstance(event, UsageUpdated):
            facts.requested(_tokens(event.usage))


def reported(facts: TurnFacts, report: TurnFinished) -> None:
    """Record the agent's report."""
    facts.outcome = report.outcome.name.lower()
    facts.stop_reason = report.stop_reason
    facts.steps = report.agent_steps
    facts.failure_cause = report.failure_cause.word
    if report.upstream_status or facts.failure_text:
        incident(
            facts.recorder,
            "upstream.failed",
            **facts.ids,
            status=report.upstream_status,
            failure_cause=facts.failure_cause,
            said=facts.failure_text,
        )
    spent(facts, report.usage)
    facts.by_model = {
        model: Spent(_tokens(usage), usage.cost_usd)
        for model, usage in report.usage_by_model.items()
    }


def spent(facts: TurnFacts, usage: Usage, *, estimated: bool = False) -> None:
    """Record the usage of a turn. It is an estimate if the turn has no report."""
    facts.estimated = estimated
    facts.cost_usd = usage.cost_usd
    facts.tokens = _tokens(usage)


def judged(facts: TurnFacts, events: int, error: SamovarError | None) -> None:
    """Record how a turn ended: its number of events, and its error or None."""
    facts.events = events
    if error is not None:
        facts.reason, facts.cause = error.reason, error.cause
        # A turn whose prompt was not written is refused and has no outcome.
        facts.outcome = "lost" if facts.prompt_written else ""


def _tokens(usage: Usage) -> Tokens:
    return Tokens(
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_read_input_tokens,
        usage.cache_creation_input_tokens,
    )


def _wait_result(error: SamovarError | None) -> str:
    """Return the name of how a wait for a process ended."""
    if error is None:
        return "granted"
    # A full queue has the same cause, but a turn that it refused never waited.
    if isinstance(error, NoProcess) and error.cause == "saturated":
        return "expired"
    return "withdrawn" if isinstance(error, (TurnWithdrawn, Draining)) else "failed"
