"""Spans of calls, turns and starts.

A span is created when its operation is over, from the times noted on the way. A call's place in
its trace, and whether that is recorded, is decided when the call begins. Spans are created whole:
the SDK's tracer, which fills a span step by step with a lock and a check for every attribute,
takes twice as long. No span is ever current; contexts are passed. Uses the SDK; independent of
where spans go.
"""

import random
from collections.abc import Callable, Mapping, Sequence

from opentelemetry.context import Context as SdkContext
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.sampling import Decision, Sampler
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from samovard.telemetry import names
from samovard.telemetry.context import Context, new_span_id
from samovard.telemetry.facts import SEND, CallFacts, StartFacts, Tool, TurnFacts, Wait

WAIT_SHOWN = 1_000_000  # nanoseconds; shorter waits have no span
_NOWHERE = SdkContext()
_UNSET = Status(StatusCode.UNSET)

Given = Mapping[str, str | int | float | bool | Sequence[str]]


class Spans:
    """Create spans and pass each to `ended`. Tools get spans only where the agent creates none.

    With `old_names`, renamed attributes are set under their old names as well.
    """

    def __init__(
        self,
        ended: Callable[[ReadableSpan], None],
        sampler: Sampler,
        resource: Resource,
        scope: InstrumentationScope,
        *,
        old_names: bool = False,
    ) -> None:
        self._ended = ended
        self._sampler = sampler
        self._resource = resource
        self._scope = scope
        self._old_names = old_names
        self._propagator = TraceContextTextMapPropagator()
        self.address: dict[str, str | int] = {}
        self.isolation = ""

    def begin_call(self, call: CallFacts, carrier: Mapping[str, str]) -> None:
        """Set a call's place in a trace, below the caller's span if `carrier` names one."""
        parent = self._propagator.extract(carrier, _NOWHERE) if carrier else _NOWHERE
        above = get_current_span(parent).get_span_context()
        trace_id = above.trace_id if above.is_valid else random.getrandbits(128) or 1
        given = {names.RPC_SYSTEM_NAME: names.GRPC, names.RPC_METHOD: call.method, **self.address}
        told = self._sampler.should_sample(parent, trace_id, call.method, SpanKind.SERVER, given)
        state = told.trace_state.to_header() if told.trace_state else ""
        sampled = told.decision is Decision.RECORD_AND_SAMPLE
        call.context = Context(f"{trace_id:032x}", new_span_id(), sampled, state)
        call.span = (above if above.is_valid else None, given)

    def end_call(self, call: CallFacts) -> None:
        """Create the span of a call with its true status, and for `Send` its stages as events."""
        context, stages = call.context, call.stages
        if context is None or not context.sampled:
            return
        above, given = call.span
        passed = [(name, stages.wall(at)) for name, at in stages.passed()]
        joined = call.joined.context if call.joined is not None else None
        events = [Event(name, timestamp=at) for name, at in passed]
        self._make(
            call.method,
            context,
            above,
            (passed[0][1], passed[-1][1]),
            {**given, **_of_call(call), **self._old({names.OLD_STATUS_CODE: call.status})},
            SpanKind.SERVER,
            Status(StatusCode.ERROR) if call.status in names.SERVER_ERRORS else _UNSET,
            [Link(_sdk(joined))] if joined is not None else (),
            events if call.method == SEND else (),
        )

    def turn(self, turn: TurnFacts) -> None:
        """Create the spans below a turn's call: its waits, its agent and its tools."""
        call = turn.call.context
        if call is None or not call.sampled:
            return
        for wait in turn.waits:
            if wait.end - wait.begin >= WAIT_SHOWN:
                self._wait(turn, wait, call)
        if turn.prompt_written:
            self._agent(turn, call)

    def _wait(self, turn: TurnFacts, wait: Wait, parent: Context) -> None:
        wall = turn.call.stages.wall
        given: Given = {
            names.WAIT_REASON: wait.reason,
            names.WAIT_RESULT: wait.result,
            names.QUEUE_DEPTH: wait.depth,
        }
        self._make(
            names.WAIT, parent.child(), _sdk(parent), (wall(wait.begin), wall(wait.end)), given
        )

    def _agent(self, turn: TurnFacts, parent: Context) -> None:
        context, stages = turn.context, turn.call.stages
        assert context is not None
        begin = stages.wall_time("process_ready")
        end = stages.wall_time("finish") or stages.wall(turn.ended or stages.now())
        failure, written = turn.failure, turn.tokens.cache_write
        old = self._old({names.OLD_USAGE_CACHE_CREATION: written})
        self._make(
            f"{names.INVOKE_AGENT} {turn.profile}",
            context,
            _sdk(parent),
            (begin or end, end),
            {**_of_agent(turn), **_of_outcome(turn), **_error(failure), **old},
            SpanKind.CLIENT,
            Status(StatusCode.ERROR, failure) if failure else _UNSET,
            _links(turn),
        )
        if not turn.traced:
            for tool in turn.tools.values():
                self._tool(turn, tool, context, end)

    def _tool(self, turn: TurnFacts, tool: Tool, parent: Context, end: int) -> None:
        wall, error = turn.call.stages.wall, tool.error or ""
        given = {
            names.GEN_AI_OPERATION_NAME: names.EXECUTE_TOOL,
            names.GEN_AI_TOOL_NAME: tool.name,
            names.GEN_AI_TOOL_CALL_ID: tool.tool_id,
            **_error(error),
        }
        self._make(
            f"{names.EXECUTE_TOOL} {tool.name}",
            parent.child(),
            _sdk(parent),
            (wall(tool.begin), end if tool.end is None else wall(tool.end)),
            given,
            status=Status(StatusCode.ERROR, error) if error else _UNSET,
        )

    def _old(self, given: Given) -> Given:
        return given if self._old_names else {}

    def start(self, start: StartFacts) -> None:
        """Create the span of a process's start, below the call that needed it."""
        parent = start.parent
        if parent is None or not parent.sampled:
            return
        given: Given = {
            names.START_REASON: start.reason,
            names.START_WAITED: start.waited,
            names.PROFILE: start.profile,
            names.RESUMED: start.resumed,
            names.ISOLATION: self.isolation,
            names.PROCESS_EXECUTABLE_NAME: "claude",
            names.PROCESS_PID: start.pid,
            names.PROCESS_ID: start.process_id,
            **_error(start.cause),
        }
        start.context = parent.child()
        wall = start.stages.wall
        self._make(
            names.PROCESS_START,
            start.context,
            _sdk(parent),
            (wall(start.begin), wall(start.end or start.stages.now())),
            given,
            status=Status(StatusCode.ERROR, start.cause) if start.cause else _UNSET,
        )

    def _make(
        self,
        name: str,
        context: Context,
        parent: SpanContext | None,
        times: tuple[int, int],
        given: Given,
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = _UNSET,
        links: Sequence[Link] = (),
        events: Sequence[Event] = (),
    ) -> None:
        begin, end = times
        span = ReadableSpan(
            name,
            _sdk(context),
            parent,
            self._resource,
            given,
            events,
            links,
            kind,
            status=status,
            start_time=begin,
            end_time=end,
            instrumentation_scope=self._scope,
        )
        self._ended(span)


def below(context: Context) -> SdkContext:
    """Return the SDK's context for a place in a trace, to which exemplars then point."""
    return set_span_in_context(NonRecordingSpan(_sdk(context)), _NOWHERE)


def _of_call(call: CallFacts) -> dict[str, str | int | float | bool]:
    given: dict[str, str | int | float | bool] = {
        names.RPC_STATUS_CODE: call.status,
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
        names.RPC_METHOD_ORIGINAL: call.original,
        names.USER_AGENT_ORIGINAL: call.user_agent,
        names.NETWORK_PEER_ADDRESS: call.peer,
    }
    if call.status in names.SERVER_ERRORS:
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


def _of_agent(turn: TurnFacts) -> dict[str, str]:
    return {
        names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT,
        names.GEN_AI_PROVIDER_NAME: names.ANTHROPIC,
        names.GEN_AI_AGENT_NAME: turn.profile,
        names.GEN_AI_AGENT_VERSION: turn.agent_version,
        names.GEN_AI_CONVERSATION_ID: turn.conversation,
        names.SESSION_ID: turn.session,
        names.GEN_AI_REQUEST_MODEL: turn.model,
        **{f"{names.SESSION_LABEL}{key}": label for key, label in turn.labels.items()},
    }


def _of_outcome(turn: TurnFacts) -> dict[str, str | int | float | list[str]]:
    tokens = turn.tokens
    cached = {
        names.GEN_AI_USAGE_CACHE_READ: tokens.cache_read,
        names.GEN_AI_USAGE_CACHE_WRITE: tokens.cache_write,
    }
    given: dict[str, str | int | float | list[str]] = {
        names.GEN_AI_USAGE_INPUT_TOKENS: tokens.all_input,
        names.GEN_AI_USAGE_OUTPUT_TOKENS: tokens.output,
        **{name: count for name, count in cached.items() if count},
        names.OUTCOME: turn.outcome,
        names.STEPS: turn.steps,
        names.COST_USD: turn.cost_usd,
        names.PROCESS_ID: turn.process_id,
    }
    if turn.estimated:
        given[names.USAGE_ESTIMATED] = True
    if turn.response_model:
        given[names.GEN_AI_RESPONSE_MODEL] = turn.response_model
    if turn.failure_cause:
        given[names.FAILURE_CAUSE] = turn.failure_cause
    if turn.failure_text:
        given[names.FAILURE_TEXT] = turn.failure_text
    if turn.stop_reason:
        given[names.GEN_AI_RESPONSE_FINISH_REASONS] = [turn.stop_reason]
    return given


def _links(turn: TurnFacts) -> list[Link]:
    start = turn.start.context if turn.start is not None else None
    earlier = start if turn.start_mode == "warm" else turn.previous
    return [Link(_sdk(earlier))] if earlier is not None else []


def _sdk(context: Context) -> SpanContext:
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    state = TraceState.from_header([context.state]) if context.state else None
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), False, flags, state)


def _error(kind: str) -> dict[str, str]:
    return {names.ERROR_TYPE: kind} if kind else {}
