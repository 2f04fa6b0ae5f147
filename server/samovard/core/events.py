"""The events of a turn, in the words of the contract.

`agent` creates these events and `edge` sends them. This module does not depend on the agent's
lines, on protobuf or on subscribers. The events are msgspec structs, not dataclasses: a turn
creates one per delta, and a frozen dataclass with these fields costs ten times as much.
"""

import enum

from msgspec import Struct


class StartMode(enum.Enum):
    """How a turn got its process."""

    # The values of this enum and the next three are numbers of the contract.
    WARM = 1
    SPARE = 2
    COLD = 3
    RESUMED = 4


class Outcome(enum.Enum):
    """How a turn ended, by the agent's report."""

    COMPLETED = 1
    INTERRUPTED = 2
    LIMIT_REACHED = 3
    FAILED = 4


class FailureCause(enum.Enum):
    """Why a turn failed, grouped by what its caller or the operator can do about it."""

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

    @property
    def word(self) -> str:
        """The cause as logs and spans have it: kebab-case, empty without a failure."""
        return self.name.lower().replace("_", "-") if self.value else ""


class Resolution(enum.Enum):
    """How a permission request ended."""

    ALLOWED = 1
    DENIED = 2
    EXPIRED = 3
    WITHDRAWN = 4


#: What the contract's int64 can hold, and more US dollars than there are.
MAX_COUNT, MAX_COST = (1 << 63) - 1, 1e15


def bounded(number: float | None, most: float) -> float:
    """Return a number from the agent, clamped to 0 … `most`; 0 for None and NaN."""
    # Not `min` and `max` alone: NaN compares false with everything and would pass through.
    return min(max(number, 0), most) if number is not None and number == number else 0


def bounded_count(number: float | None) -> int:
    """Return a count from the agent, within the range of the contract and of the store."""
    if number is None or not 0 <= number <= MAX_COUNT:
        number = bounded(number, MAX_COUNT)
    return int(number)


def bounded_cost(number: float | None) -> float:
    """Return an amount of US dollars from the agent, finite and not negative."""
    return float(bounded(number, MAX_COST))


class Usage(Struct, frozen=True):
    """Tokens and US dollars. A sum stays within the range of the contract."""

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    cost_usd: float = 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            bounded_count(self.input_tokens + other.input_tokens),
            bounded_count(self.output_tokens + other.output_tokens),
            bounded_count(self.cache_read_input_tokens + other.cache_read_input_tokens),
            bounded_count(self.cache_creation_input_tokens + other.cache_creation_input_tokens),
            bounded_cost(self.cost_usd + other.cost_usd),
        )


class Timings(Struct, frozen=True):
    """When a turn reached each stage, in nanoseconds since the epoch, or None.

    `permission_wait` is a duration: the nanoseconds during which a permission request was open.
    """

    receive: int | None = None
    admit: int | None = None
    process_ready: int | None = None
    prompt_write: int | None = None
    first_event: int | None = None
    first_text: int | None = None
    finish: int | None = None
    permission_wait: int | None = None


# gc=False: events are in no reference cycles, so the garbage collector need not visit them.
class Event(Struct, frozen=True, gc=False, kw_only=True):
    """The fields that every event has.

    `raw` is the agent's line; only the first event made from a line has it. It is empty if the
    line is longer than 1 MiB. `raw_bytes` is the length of the line in either case.
    """

    parent_tool_use_id: str = ""
    raw: bytes = b""
    raw_bytes: int = 0


class TurnStarted(Event, frozen=True, gc=False):
    """The prompt was written to a process."""

    session_id: str
    turn_id: str
    start_mode: StartMode
    process_id: str
    pid: int
    process_turn: int


class AgentInfo(Event, frozen=True, gc=False):
    """The agent reported its model, its version and its tools."""

    model: str
    agent_version: str
    tools: tuple[str, ...]


class TextDelta(Event, frozen=True, gc=False):
    """A part of a text block, at most 1 MiB as UTF-8."""

    message_id: str
    block_index: int
    text: str


class ThinkingDelta(Event, frozen=True, gc=False):
    """A part of a thinking block, at most 1 MiB as UTF-8."""

    message_id: str
    block_index: int
    text: str


class BlocksAbandoned(Event, frozen=True, gc=False):
    """Blocks from this index on are void; their replacements have another message id."""

    message_id: str
    from_block_index: int


class ToolUse(Event, frozen=True, gc=False):
    """The agent calls a tool; the input is a JSON object in ASCII, possibly truncated."""

    tool_use_id: str
    tool_name: str
    input_json: str
    input_truncated_bytes: int = 0


class ToolResult(Event, frozen=True, gc=False):
    """A tool returned."""

    tool_use_id: str
    text: str
    is_error: bool
    text_truncated_bytes: int = 0


class PermissionRequested(Event, frozen=True, gc=False):
    """A tool waits for permission; the input is a JSON object in ASCII, possibly truncated.

    In the event of a process, `permission_id` is the agent's own id of the request and
    `expire_time` is 0. Clients get another id, and the time at which the request is denied, in
    seconds since the epoch.
    """

    permission_id: str
    tool_use_id: str
    tool_name: str
    input_json: str
    input_truncated_bytes: int = 0
    title: str = ""
    reason: str = ""
    expire_time: float = 0.0


class PermissionResolved(Event, frozen=True, gc=False):
    """A permission request has ended; a process reports only withdrawals."""

    permission_id: str
    resolution: Resolution


class UsageUpdated(Event, frozen=True, gc=False):
    """The usage of the turn so far."""

    usage: Usage


class Notice(Event, frozen=True, gc=False):
    """A message for the user; the code is kebab-case."""

    code: str
    message: str


class TurnFinished(Event, frozen=True, gc=False):
    """The agent's report on a turn. The core fills in `timings`."""

    outcome: Outcome
    result: str = ""
    result_truncated_bytes: int = 0
    stop_reason: str = ""
    errors: tuple[str, ...] = ()
    upstream_status: int = 0
    upstream_retry_delay: float | None = None
    usage: Usage = Usage()
    usage_by_model: dict[str, Usage] = {}  # msgspec copies an empty default: it is not shared
    agent_steps: int = 0
    timings: Timings = Timings()
    failure_cause: FailureCause = FailureCause.UNSPECIFIED

    @property
    def told_at(self) -> float:
        """The time of the `finish` stage, in seconds since the epoch."""
        return (self.timings.finish or 0) / 1e9


class Unrecognized(Event, frozen=True, gc=False):
    """A line of the agent that has no event of its own."""

    type: str
    subtype: str
