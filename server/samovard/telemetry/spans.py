"""Turns and calls as spans.

A call's span begins with the call, since its place must be known; all others are made when
what they tell is over, with the times that were noted. No span is ever current: contexts
are passed. Knows the SDK; knows nothing of where spans go.
"""

import random
from collections.abc import Mapping

from opentelemetry.context import Context as SdkContext
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from samovard.telemetry import names
from samovard.telemetry.call import SEND, Call
from samovard.telemetry.context import Context
from samovard.telemetry.observation import Observation, Tool, Wait
from samovard.telemetry.start import Start

WAIT_SHOWN = 1_000_000  # nanoseconds from which on a wait has a span
_NOWHERE = SdkContext()


class Ids(RandomIdGenerator):
    """Makes ids, or gives out one that was promised: others know it before its span is made."""

    def __init__(self) -> None:
        self._promised = ""

    def promise(self, span_id: str) -> None:
        """Says which id the next span has."""
        self._promised = span_id

    def generate_span_id(self) -> int:
        """Gives the promised id once, else a new one."""
        promised, self._promised = self._promised, ""
        return int(promised, 16) if promised else random.getrandbits(64) or 1


class Spans:
    """Makes the spans; those of tools only where the agent makes none."""

    def __init__(self, tracer: Tracer, ids: Ids) -> None:
        self._tracer = tracer
        self._ids = ids
        self._propagator = TraceContextTextMapPropagator()
        self.address: dict[str, str | int] = {}

    def begin_call(self, call: Call, carrier: Mapping[str, str]) -> None:
        """Begins the span of a call, below the caller's if it came with one."""
        parent = self._propagator.extract(carrier, _NOWHERE) if carrier else _NOWHERE
        span = self._tracer.start_span(
            call.method,
            parent,
            SpanKind.SERVER,
            {names.RPC_SYSTEM_NAME: "grpc", names.RPC_METHOD: call.method, **self.address},
            start_time=call.stages.wall_time("receive"),
        )
        call.span = span
        call.context = _context(span.get_span_context())

    def end_call(self, call: Call) -> None:
        """Ends the span of a call: its stages, if it is a turn's, and its true status."""
        span: Span = call.span
        if not span.is_recording():
            return
        stages = call.stages
        if call.method == SEND:
            for name, at in stages.passed():
                span.add_event(name, timestamp=stages.wall(at))
        span.set_attributes(_of_call(call))
        if call.joined is not None and call.joined.context is not None:
            span.add_link(_sdk(call.joined.context))
        if call.status in names.SERVER_ERRORS:
            span.set_status(Status(StatusCode.ERROR))
        span.end(stages.wall_time("deliver"))
        call.span = None

    def turn(self, turn: Observation) -> None:
        """Makes the spans below a turn's call: its waits, its agent, its tools."""
        call = turn.call.context
        if call is None or not call.sampled:
            return
        for wait in turn.waits:
            if wait.end - wait.begin >= WAIT_SHOWN:
                self._wait(turn, wait, call)
        if turn.prompt_written:
            self._agent(turn, call)

    def _wait(self, turn: Observation, wait: Wait, parent: Context) -> None:
        wall = turn.call.stages.wall
        span = self._span(names.WAIT, parent, {names.WAIT_REASON: wait.reason}, wall(wait.begin))
        span.set_attribute(names.WAIT_RESULT, wait.result)
        span.set_attribute(names.QUEUE_DEPTH, wait.depth)
        span.end(wall(wait.end))

    def _agent(self, turn: Observation, parent: Context) -> None:
        context, stages = turn.context, turn.call.stages
        assert context is not None
        self._ids.promise(context.span_id)
        begin = stages.wall_time("process_ready")
        end = stages.wall_time("finish") or stages.wall(turn.ended or stages.now())
        span = self._tracer.start_span(
            f"{names.INVOKE_AGENT} {turn.profile}",
            below(parent),
            SpanKind.CLIENT,
            _of_agent(turn),
            _links(turn),
            begin,
        )
        span.set_attributes(_of_outcome(turn))
        if turn.failure:
            span.set_attribute(names.ERROR_TYPE, turn.failure)
            span.set_status(Status(StatusCode.ERROR, turn.failure))
        if not turn.traced:
            for tool in turn.tools.values():
                self._tool(turn, tool, context, end)
        span.end(end)

    def _tool(self, turn: Observation, tool: Tool, parent: Context, end: int) -> None:
        wall = turn.call.stages.wall
        given: dict[str, str | int | bool] = {
            names.GEN_AI_OPERATION_NAME: names.EXECUTE_TOOL,
            names.GEN_AI_TOOL_NAME: tool.name,
            names.GEN_AI_TOOL_CALL_ID: tool.tool_id,
        }
        title = f"{names.EXECUTE_TOOL} {tool.name}"
        span = self._span(title, parent, given, wall(tool.begin))
        if (error := tool.error) is not None:
            span.set_attribute(names.ERROR_TYPE, error)
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end if tool.end is None else wall(tool.end))

    def start(self, start: Start) -> None:
        """Makes the span of a process's start, below the call that needed it."""
        parent = start.parent
        if parent is None or not parent.sampled:
            return
        given: dict[str, str | int | bool] = {
            names.START_REASON: start.reason,
            names.PROFILE: start.profile,
            names.RESUMED: start.resumed,
            names.ISOLATION: "none",
            names.PROCESS_EXECUTABLE_NAME: "claude",
        }
        span = self._span(names.PROCESS_START, parent, given, start.stages.wall(start.begin))
        span.set_attribute(names.PROCESS_PID, start.pid)
        span.set_attribute(names.PROCESS_ID, start.process_id)
        if start.cause:
            span.set_attribute(names.ERROR_TYPE, start.cause)
            span.set_status(Status(StatusCode.ERROR, start.cause))
        start.context = _context(span.get_span_context())
        span.end(start.stages.wall(start.end or start.stages.now()))

    def _span(
        self, name: str, parent: Context, given: Mapping[str, str | int | bool], begin: int
    ) -> Span:
        return self._tracer.start_span(
            name, below(parent), SpanKind.INTERNAL, dict(given), start_time=begin
        )


def below(context: Context) -> SdkContext:
    """Gives the SDK's context below a place; what is measured in it points there."""
    return set_span_in_context(NonRecordingSpan(_sdk(context)), _NOWHERE)


def _of_call(call: Call) -> dict[str, str | int | float | bool]:
    given: dict[str, str | int | float | bool] = {
        names.RPC_RESPONSE_STATUS_CODE: call.status,
        names.RPC_ATTEMPT: call.attempt,
        names.RESPONSES: call.responses,
        names.BYTES: call.bytes,
    }
    texts = {
        names.TENANT_ID: call.tenant,
        names.SESSION_ID: call.session,
        names.TURN_ID: call.turn_id,
        names.ERROR_REASON: call.reason,
        names.ERROR_CAUSE: call.cause,
    }
    if call.status != "OK":
        texts[names.ERROR_TYPE] = call.status
    if call.method == SEND:
        turn = call.turn or call.joined
        given[names.PROMPT_WRITTEN] = turn is not None and turn.prompt_written
        given[names.WRITE_BLOCKED] = call.write_blocked / 1e9
        given |= {names.PART + part: time / 1e9 for part, time in call.stages.parts.items()}
        if turn is not None:
            given[names.EVENTS] = turn.events
            texts[names.START_MODE] = turn.start_mode
    return given | {name: text for name, text in texts.items() if text}


def _of_agent(turn: Observation) -> dict[str, str]:
    return {
        names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT,
        names.GEN_AI_PROVIDER_NAME: names.ANTHROPIC,
        names.GEN_AI_AGENT_NAME: turn.profile,
        names.GEN_AI_AGENT_VERSION: turn.agent_version,
        names.GEN_AI_CONVERSATION_ID: turn.session,
        names.GEN_AI_REQUEST_MODEL: turn.model,
        **{f"{names.SESSION_LABEL}{key}": label for key, label in turn.labels.items()},
    }


def _of_outcome(turn: Observation) -> dict[str, str | int | float | list[str]]:
    tokens = turn.tokens
    given: dict[str, str | int | float | list[str]] = {
        names.GEN_AI_USAGE_INPUT_TOKENS: tokens.all_input,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: tokens.output,
        names.GEN_AI_USAGE_CACHE_READ: tokens.cache_read,
        names.GEN_AI_USAGE_CACHE_CREATION: tokens.cache_creation,
        names.OUTCOME: turn.outcome,
        names.STEPS: turn.steps,
        names.COST_USD: turn.cost_usd,
        names.PROCESS_ID: turn.process_id,
    }
    if turn.stop_reason:
        given[names.GEN_AI_RESPONSE_FINISH_REASONS] = [turn.stop_reason]
    return given


def _links(turn: Observation) -> list[Link]:
    start = turn.start.context if turn.start is not None else None
    earlier = start if turn.start_mode == "warm" else turn.previous
    return [Link(_sdk(earlier))] if earlier is not None else []


def _sdk(context: Context) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), False, flags, state)


def _context(span: SpanContext) -> Context:
    state = span.trace_state.to_header()
    sampled = span.trace_flags.sampled
    return Context(f"{span.trace_id:032x}", f"{span.span_id:016x}", sampled, state)
