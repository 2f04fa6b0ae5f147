"""Convert events and sessions to protobuf.

Knows the contract, and decides nothing: what an event holds was decided before.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

from google.protobuf import duration_pb2, timestamp_pb2

from samovar.v1 import session_pb2 as pb
from samovard.core import events as ev
from samovard.core.records import DailyUsage, Spec
from samovard.core.sessions.session import SessionInfo
from samovard.core.turn.event_log import Batch

#: A response is closed before it would exceed this; a larger event is sent alone.
MAX_RESPONSE = 1 << 20


def send_responses(batches: Sequence[Batch]) -> Sequence[pb.SendResponse]:
    """Return everything that is ready as few responses.

    Each has at most `MAX_RESPONSE` bytes, or one event, which has at most 3 MiB.
    """
    return [pb.SendResponse(events=events) for events in _portions(batches)]


def attach_responses(batches: Sequence[Batch]) -> Sequence[pb.AttachResponse]:
    """Return the same as `send_responses`, for `Attach`."""
    return [pb.AttachResponse(events=events) for events in _portions(batches)]


def _portions(batches: Sequence[Batch]) -> Sequence[list[pb.Event]]:
    """Return the events of one response after another."""
    size, events = 0, list[pb.Event]()
    for batch in batches:
        size += batch.size
        _write(batch, events)
    return [events] if size < MAX_RESPONSE // 2 else [*_split(events)]


def _split(events: Sequence[pb.Event]) -> Iterator[list[pb.Event]]:
    """Yield events in portions, each below the size of a response or of one event."""
    ready: list[pb.Event] = []
    size = 0
    for event in events:
        # 8 bytes: the most that an event's tag and length take within the response.
        more = event.ByteSize() + 8
        if ready and size + more > MAX_RESPONSE:
            yield ready
            ready, size = [], 0
        ready.append(event)
        size += more
    yield ready


def session_info(info: SessionInfo) -> pb.SessionInfo:
    """Convert a session as its tenant sees it."""
    record = info.record
    return pb.SessionInfo(
        session_id=record.key.session,
        state=cast("pb.SessionInfo.State.ValueType", info.state.value),
        spec=_spec(record.spec),
        active_turn_id=info.active_turn_id,
        turn_count=record.turn_count,
        usage=_usage(record.usage),
        create_time=timestamp(record.create_time),
        update_time=timestamp(record.update_time),
        expire_time=timestamp(record.expire_time),
    )


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """Convert seconds since the epoch, to the microsecond."""
    microseconds = round(seconds * 1e6)
    return timestamp_pb2.Timestamp(
        seconds=microseconds // 1_000_000, nanos=microseconds % 1_000_000 * 1000
    )


def _write(batch: Batch, events: list[pb.Event]) -> None:
    time = timestamp(batch.time)
    for sequence, event in enumerate(batch.events, batch.sequence):
        field, write = _WRITERS[type(event)]
        events.append(
            pb.Event(
                sequence=sequence,
                time=time,
                parent_tool_use_id=event.parent_tool_use_id,
                raw_json=event.raw,
                raw_json_bytes=event.raw_bytes,
                **{field: write(event)},
            )
        )


def _started(event: ev.TurnStarted) -> pb.TurnStarted:
    return pb.TurnStarted(
        session_id=event.session_id,
        turn_id=event.turn_id,
        start_mode=cast("pb.TurnStarted.StartMode.ValueType", event.start_mode.value),
        process_id=event.process_id,
        pid=event.pid,
        process_turn=event.process_turn,
    )


def _agent_info(event: ev.AgentInfo) -> pb.AgentInfo:
    return pb.AgentInfo(model=event.model, agent_version=event.agent_version, tools=event.tools)


def _text(event: ev.TextDelta) -> pb.TextDelta:
    return pb.TextDelta(message_id=event.message_id, block_index=event.block_index, text=event.text)


def _thinking(event: ev.ThinkingDelta) -> pb.ThinkingDelta:
    return pb.ThinkingDelta(
        message_id=event.message_id, block_index=event.block_index, text=event.text
    )


def _abandoned(event: ev.BlocksAbandoned) -> pb.BlocksAbandoned:
    return pb.BlocksAbandoned(message_id=event.message_id, from_block_index=event.from_block_index)


def _tool_use(event: ev.ToolUse) -> pb.ToolUse:
    return pb.ToolUse(
        tool_use_id=event.tool_use_id,
        tool_name=event.tool_name,
        input_json=event.input_json,
        input_truncated_bytes=event.input_truncated_bytes,
    )


def _tool_result(event: ev.ToolResult) -> pb.ToolResult:
    return pb.ToolResult(
        tool_use_id=event.tool_use_id,
        text=event.text,
        text_truncated_bytes=event.text_truncated_bytes,
        is_error=event.is_error,
    )


def _requested(event: ev.PermissionRequested) -> pb.PermissionRequested:
    return pb.PermissionRequested(
        permission_id=event.permission_id,
        tool_use_id=event.tool_use_id,
        tool_name=event.tool_name,
        input_json=event.input_json,
        input_truncated_bytes=event.input_truncated_bytes,
        title=event.title,
        reason=event.reason,
        expire_time=timestamp(event.expire_time),
    )


def _resolved(event: ev.PermissionResolved) -> pb.PermissionResolved:
    return pb.PermissionResolved(
        permission_id=event.permission_id,
        resolution=cast("pb.PermissionResolved.Resolution.ValueType", event.resolution.value),
    )


def _usage(usage: ev.Usage) -> pb.Usage:
    return pb.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_input_tokens=usage.cache_read_input_tokens,
        cache_creation_input_tokens=usage.cache_creation_input_tokens,
        cost_usd=usage.cost_usd,
    )


def daily_usage(used: DailyUsage) -> pb.DailyUsage:
    """Convert what was used on a day with a model."""
    return pb.DailyUsage(
        day=used.day,
        model=used.model,
        turns=used.turns,
        usage=_usage(used.usage),
        lost_turns=used.lost_turns,
        lost_usage=_usage(used.lost_usage),
    )


def _usage_updated(event: ev.UsageUpdated) -> pb.Usage:
    return _usage(event.usage)


def _notice(event: ev.Notice) -> pb.Notice:
    return pb.Notice(code=event.code, message=event.message)


def _finished(event: ev.TurnFinished) -> pb.TurnFinished:
    finished = pb.TurnFinished(
        outcome=cast("pb.TurnFinished.Outcome.ValueType", event.outcome.value),
        result=event.result,
        result_truncated_bytes=event.result_truncated_bytes,
        stop_reason=event.stop_reason,
        errors=event.errors,
        upstream_status=event.upstream_status,
        usage=_usage(event.usage),
        usage_by_model={model: _usage(usage) for model, usage in event.usage_by_model.items()},
        agent_steps=event.agent_steps,
        timings=_timings(event.timings),
        failure_cause=cast("pb.TurnFinished.FailureCause.ValueType", event.failure_cause.value),
    )
    if event.upstream_retry_delay is not None:
        finished.upstream_retry_delay.CopyFrom(_duration(event.upstream_retry_delay))
    return finished


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMicroseconds(round(1e6 * seconds))
    return duration


def _timings(timings: ev.Timings) -> pb.TurnTimings:
    written = pb.TurnTimings()
    for name in timings.__struct_fields__:
        at = getattr(timings, name)
        if at is not None and name != "permission_wait":
            getattr(written, f"{name}_time").FromNanoseconds(at)
    if timings.permission_wait is not None:
        written.permission_wait.FromNanoseconds(timings.permission_wait)
    return written


def _unrecognized(event: ev.Unrecognized) -> pb.Unrecognized:
    return pb.Unrecognized(type=event.type, subtype=event.subtype)


def _spec(spec: Spec) -> pb.SessionSpec:
    return pb.SessionSpec(
        profile=spec.profile,
        model=spec.model,
        append_system_prompt=spec.append_system_prompt,
        permission_policy=cast("pb.PermissionPolicy.ValueType", spec.permission_policy),
        labels=spec.labels,
    )


_WRITERS: dict[type[ev.Event], tuple[str, Callable[[Any], Any]]] = {
    ev.TurnStarted: ("turn_started", _started),
    ev.AgentInfo: ("agent_info", _agent_info),
    ev.TextDelta: ("text_delta", _text),
    ev.ThinkingDelta: ("thinking_delta", _thinking),
    ev.BlocksAbandoned: ("blocks_abandoned", _abandoned),
    ev.ToolUse: ("tool_use", _tool_use),
    ev.ToolResult: ("tool_result", _tool_result),
    ev.PermissionRequested: ("permission_requested", _requested),
    ev.PermissionResolved: ("permission_resolved", _resolved),
    ev.UsageUpdated: ("usage_updated", _usage_updated),
    ev.Notice: ("notice", _notice),
    ev.TurnFinished: ("turn_finished", _finished),
    ev.Unrecognized: ("unrecognized", _unrecognized),
}
