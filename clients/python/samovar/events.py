"""The events of a turn, as plain typed values.

Knows the contract. An event of a kind that this version does not know is skipped.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from samovar.v1 import session_pb2 as pb


class _Tolerant(enum.IntEnum):
    """An enum that accepts values that later servers may send."""

    @classmethod
    def _missing_(cls, value: object) -> "_Tolerant | None":
        if not isinstance(value, int):
            return None
        unknown = int.__new__(cls, value)
        unknown._name_ = f"UNKNOWN_{value}"
        unknown._value_ = value
        return unknown


class StartMode(_Tolerant):
    """How a turn got its process."""

    UNSPECIFIED = 0
    WARM = 1
    SPARE = 2
    COLD = 3
    RESUMED = 4


class Outcome(_Tolerant):
    """How a turn ended."""

    UNSPECIFIED = 0
    COMPLETED = 1
    INTERRUPTED = 2
    LIMIT_REACHED = 3
    FAILED = 4


class FailureCause(_Tolerant):
    """Why a turn failed: `UNSPECIFIED` if it did not, unknown values count as `OTHER`."""

    UNSPECIFIED = 0
    OTHER = 1
    AUTHENTICATION = 2
    PERMISSION = 3
    BILLING = 4
    RATE_LIMITED = 5
    OVERLOADED = 6
    UPSTREAM = 7
    NETWORK = 8
    INVALID_REQUEST = 9
    REQUEST_TOO_LARGE = 10
    CONTEXT_TOO_LONG = 11
    MODEL_NOT_FOUND = 12
    RESULT_INVALID = 13


class Resolution(_Tolerant):
    """How a permission request ended."""

    UNSPECIFIED = 0
    ALLOWED = 1
    DENIED = 2
    EXPIRED = 3
    WITHDRAWN = 4


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens, and the agent's own estimate of the cost in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cost_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Timings:
    """When each stage was reached: seconds since the epoch, None if it was not.

    `permission_wait` is how many seconds a permission request was open, None if none was.
    """

    receive: float | None = None
    admit: float | None = None
    process_ready: float | None = None
    prompt_write: float | None = None
    first_event: float | None = None
    first_text: float | None = None
    finish: float | None = None
    permission_wait: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """The fields of every event: its number in the turn and its time, seconds since the epoch.

    `parent_tool_use_id` names the tool call whose sub-agent it came from, empty for the main agent;
    `raw_json` is the agent's own line, if it was asked for and is allowed.
    """

    sequence: int
    time: float
    parent_tool_use_id: str = ""
    raw_json: bytes = b""


@dataclass(frozen=True, slots=True)
class TurnStarted(Event):
    """The message was written to a process."""

    session_id: str
    turn_id: str
    start_mode: StartMode
    process_id: str
    pid: int
    process_turn: int


@dataclass(frozen=True, slots=True)
class AgentInfo(Event):
    """The agent's description of itself."""

    model: str
    agent_version: str
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextDelta(Event):
    """A piece of a text block."""

    message_id: str
    block_index: int
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta(Event):
    """A piece of a thinking block."""

    message_id: str
    block_index: int
    text: str


@dataclass(frozen=True, slots=True)
class BlocksAbandoned(Event):
    """The message's blocks from this one on are void: forget their deltas."""

    message_id: str
    from_block_index: int


@dataclass(frozen=True, slots=True)
class ToolUse(Event):
    """The agent calls a tool; `input_json` is a JSON object unless bytes were cut off."""

    tool_use_id: str
    tool_name: str
    input_json: str
    input_truncated_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ToolResult(Event):
    """A tool returned."""

    tool_use_id: str
    text: str
    is_error: bool
    text_truncated_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PermissionRequested(Event):
    """A tool waits to be allowed; denied at `expire_time`, seconds since the epoch.

    `input_json` is a JSON object unless bytes were cut off.
    """

    permission_id: str
    tool_use_id: str
    tool_name: str
    input_json: str
    title: str
    reason: str
    expire_time: float
    input_truncated_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PermissionResolved(Event):
    """A permission request is over."""

    permission_id: str
    resolution: Resolution


@dataclass(frozen=True, slots=True)
class UsageUpdated(Event):
    """What the turn has spent so far."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Notice(Event):
    """Something worth showing."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TurnFinished(Event):
    """The last event of a turn whose end is known."""

    outcome: Outcome
    result: str
    result_truncated_bytes: int = 0
    stop_reason: str = ""
    errors: tuple[str, ...] = ()
    upstream_status: int = 0
    upstream_retry_delay: float | None = None
    usage: Usage = Usage()
    usage_by_model: Mapping[str, Usage] = field(default_factory=dict)
    agent_steps: int = 0
    timings: Timings = Timings()
    failure_cause: FailureCause = FailureCause.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Unrecognized(Event):
    """A line of the agent that the server has no event for."""

    type: str
    subtype: str


def read(event: pb.Event) -> Event | None:
    """Return the event in a message; None for a kind that is not known."""
    kind = event.WhichOneof("kind")
    reader = _READERS.get(kind or "")
    if reader is None or kind is None:
        return None
    return reader(
        getattr(event, kind),
        {
            "sequence": event.sequence,
            "time": seconds(event.time),
            "parent_tool_use_id": event.parent_tool_use_id,
            "raw_json": event.raw_json,
        },
    )


def seconds(time: Timestamp) -> float:
    """Return a time as seconds since the epoch."""
    return float(time.seconds) + time.nanos / 1e9


def usage(message: pb.Usage) -> Usage:
    """Return the usage in a message."""
    return Usage(
        message.input_tokens,
        message.output_tokens,
        message.cache_read_input_tokens,
        message.cache_creation_input_tokens,
        message.cost_usd,
    )


Head = dict[str, Any]


def _started(m: pb.TurnStarted, head: Head) -> Event:
    mode = StartMode(m.start_mode)
    return TurnStarted(m.session_id, m.turn_id, mode, m.process_id, m.pid, m.process_turn, **head)


def _info(m: pb.AgentInfo, head: Head) -> Event:
    return AgentInfo(m.model, m.agent_version, tuple(m.tools), **head)


def _text(m: pb.TextDelta, head: Head) -> Event:
    return TextDelta(m.message_id, m.block_index, m.text, **head)


def _thinking(m: pb.ThinkingDelta, head: Head) -> Event:
    return ThinkingDelta(m.message_id, m.block_index, m.text, **head)


def _abandoned(m: pb.BlocksAbandoned, head: Head) -> Event:
    return BlocksAbandoned(m.message_id, m.from_block_index, **head)


def _tool_use(m: pb.ToolUse, head: Head) -> Event:
    return ToolUse(m.tool_use_id, m.tool_name, m.input_json, m.input_truncated_bytes, **head)


def _tool_result(m: pb.ToolResult, head: Head) -> Event:
    return ToolResult(m.tool_use_id, m.text, m.is_error, m.text_truncated_bytes, **head)


def _requested(m: pb.PermissionRequested, head: Head) -> Event:
    return PermissionRequested(
        m.permission_id,
        m.tool_use_id,
        m.tool_name,
        m.input_json,
        m.title,
        m.reason,
        seconds(m.expire_time),
        m.input_truncated_bytes,
        **head,
    )


def _resolved(m: pb.PermissionResolved, head: Head) -> Event:
    return PermissionResolved(m.permission_id, Resolution(m.resolution), **head)


def _usage_updated(m: pb.Usage, head: Head) -> Event:
    return UsageUpdated(usage(m), **head)


def _notice(m: pb.Notice, head: Head) -> Event:
    return Notice(m.code, m.message, **head)


def _finished(m: pb.TurnFinished, head: Head) -> Event:
    delay = m.upstream_retry_delay
    waits = m.HasField("upstream_retry_delay")
    return TurnFinished(
        outcome=Outcome(m.outcome),
        result=m.result,
        result_truncated_bytes=m.result_truncated_bytes,
        stop_reason=m.stop_reason,
        errors=tuple(m.errors),
        upstream_status=m.upstream_status,
        upstream_retry_delay=delay.ToTimedelta().total_seconds() if waits else None,
        usage=usage(m.usage),
        usage_by_model={model: usage(used) for model, used in m.usage_by_model.items()},
        agent_steps=m.agent_steps,
        timings=_timings(m.timings),
        failure_cause=FailureCause(m.failure_cause),
        **head,
    )


def _timings(m: pb.TurnTimings) -> Timings:
    times = {}
    for name in Timings.__dataclass_fields__:
        if name != "permission_wait" and m.HasField(f"{name}_time"):  # type: ignore[arg-type]  # each is a field of it
            times[name] = seconds(getattr(m, f"{name}_time"))
    if m.HasField("permission_wait"):
        times["permission_wait"] = m.permission_wait.ToTimedelta().total_seconds()
    return Timings(**times)


def _unrecognized(m: pb.Unrecognized, head: Head) -> Event:
    return Unrecognized(m.type, m.subtype, **head)


_READERS: dict[str, Callable[[Any, Head], Event]] = {
    "turn_started": _started,
    "agent_info": _info,
    "text_delta": _text,
    "thinking_delta": _thinking,
    "blocks_abandoned": _abandoned,
    "tool_use": _tool_use,
    "tool_result": _tool_result,
    "permission_requested": _requested,
    "permission_resolved": _resolved,
    "usage_updated": _usage_updated,
    "notice": _notice,
    "turn_finished": _finished,
    "unrecognized": _unrecognized,
}
