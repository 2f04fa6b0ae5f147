"""What happens in a turn, in the words of the contract.

The vocabulary that `agent` speaks and `edge` writes. Knows nothing of lines, of
protobuf or of who listens. The events are msgspec structs, not dataclasses: a turn
makes one per delta, and a frozen dataclass of these fields costs ten times as much.
"""

import enum

from msgspec import Struct


class StartMode(enum.Enum):
    """How a turn got its process."""

    WARM = 1
    SPARE = 2
    COLD = 3
    RESUMED = 4


class Outcome(enum.Enum):
    """How a turn ended that the agent could report on."""

    COMPLETED = 1
    INTERRUPTED = 2
    LIMIT_REACHED = 3
    FAILED = 4


class FailureCause(enum.Enum):
    """Why a turn failed, by what its caller or the operator can do about it."""

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
        """Return it as a log line and a span have it: kebab-case, empty without a failure."""
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
    """Return a number that an agent wrote, at least 0 and at most `most`; 0 for none."""
    return min(max(number, 0), most) if number is not None and number == number else 0


def bounded_count(number: float | None) -> int:
    """Return a count that an agent wrote, as the contract and the store can hold it."""
    if number is None or not 0 <= number <= MAX_COUNT:
        number = bounded(number, MAX_COUNT)
    return int(number)


def bounded_cost(number: float | None) -> float:
    """Return an amount of US dollars that an agent wrote, finite and not negative."""
    return float(bounded(number, MAX_COST))


class Usage(Struct, frozen=True):
    """Tokens and US dollars. A sum stays within what the contract can hold."""

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
    """When each stage of a turn was reached: nanoseconds since the epoch, or None.

    `permission_wait` is a duration: the nanoseconds in which a permission request was open.
    """

    receive: int | None = None
    admit: int | None = None
    process_ready: int | None = None
    prompt_write: int | None = None
    first_event: int | None = None
    first_text: int | None = None
    finish: int | None = None
    permission_wait: int | None = None


class Event(Struct, frozen=True, gc=False, kw_only=True):
    """What every event carries.

    `raw` is the agent's line on the first event made from it, empty if it is longer
    than 1 MiB; `raw_bytes` is that line's length in either case.
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
    """The agent says what it is."""

    model: str
    agent_version: str
    tools: tuple[str, ...]


class TextDelta(Event, frozen=True, gc=False):
    """A piece of a text block, at most 1 MiB as UTF-8."""

    message_id: str
    block_index: int
    text: str


class ThinkingDelta(Event, frozen=True, gc=False):
    """A piece of a thinking block, at most 1 MiB as UTF-8."""

    message_id: str
    block_index: int
    text: str


class BlocksAbandoned(Event, frozen=True, gc=False):
    """Blocks from this index on are void; what replaces them has another message id."""

    message_id: str
    from_block_index: int


class ToolUse(Event, frozen=True, gc=False):
    """The agent calls a tool; the input is a JSON object in ASCII, perhaps cut."""

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
    """A tool waits to be allowed; the input is a JSON object in ASCII, perhaps cut.

    As a process tells it, `permission_id` is the agent's own name for the request and
    there is no expiry; callers get another name, and the time when it is denied.
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
    """A permission request is over; a process tells only that it was withdrawn."""

    permission_id: str
    resolution: Resolution


class UsageUpdated(Event, frozen=True, gc=False):
    """What the turn has spent so far."""

    usage: Usage


class Notice(Event, frozen=True, gc=False):
    """Something worth showing; the code is kebab-case."""

    code: str
    message: str


class TurnFinished(Event, frozen=True, gc=False):
    """The agent's report on a turn. `timings` are the core's to fill in."""

    outcome: Outcome
    result: str = ""
    result_truncated_bytes: int = 0
    stop_reason: str = ""
    errors: tuple[str, ...] = ()
    upstream_status: int = 0
    upstream_retry_delay: float | None = None
    usage: Usage = Usage()
    usage_by_model: dict[str, Usage] = {}
    agent_steps: int = 0
    timings: Timings = Timings()
    failure_cause: FailureCause = FailureCause.UNSPECIFIED

    @property
    def told_at(self) -> float:
        """The event's own time, that of its stage: seconds since the epoch."""
        return (self.timings.finish or 0) / 1e9


class Unrecognized(Event, frozen=True, gc=False):
    """A line that has no event."""

    type: str
    subtype: str
