"""The lines of the CLI's wire format: the fields that are read.

Field names are the wire's own. Knows nothing of what a line means. Measured on claude 2.1.330; an
unknown type, or a known one of another shape, becomes `Unknown`.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from samovard.core.events import MAX_COUNT, bounded, bounded_cost, bounded_count

#: The agent is not trusted: its numbers are bounded as they enter. JavaScript writes null for a
#: number that it cannot compute, and an exponent for a large one.
Number = int | float | None
Index = Annotated[int, Meta(ge=0, lt=1 << 31)]

MAX_ID = 256  # characters; the API's and the CLI's own have about 40
#: An id that must be repeated in an answer cannot be cut: a line with a longer one is `Unknown`.
RequestId = Annotated[str, Meta(max_length=MAX_ID)]

MAX_STATUS = (1 << 31) - 1
MAX_DELAY_MS = 24 * 3600e3
MAX_TIME = 253402300799.0  # the last second of the contract's timestamps


class Tokens(Struct, gc=False):
    """Token counts of the API; those that a line leaves out are UNSET."""

    input_tokens: Number | UnsetType = UNSET
    output_tokens: Number | UnsetType = UNSET
    cache_read_input_tokens: Number | UnsetType = UNSET
    cache_creation_input_tokens: Number | UnsetType = UNSET

    def __post_init__(self) -> None:
        for name in COUNTS:
            count = getattr(self, name)
            if count is not UNSET and (type(count) is not int or not 0 <= count <= MAX_COUNT):
                setattr(self, name, bounded_count(count))


class ModelUsage(Struct, gc=False):
    """The usage of one model, in the CLI's own spelling; the cost is in US dollars."""

    input_tokens: Number = field(default=0, name="inputTokens")
    output_tokens: Number = field(default=0, name="outputTokens")
    cache_read_input_tokens: Number = field(default=0, name="cacheReadInputTokens")
    cache_creation_input_tokens: Number = field(default=0, name="cacheCreationInputTokens")
    cost_usd: float | None = field(default=0.0, name="costUSD")

    def __post_init__(self) -> None:
        for name in COUNTS:
            count = getattr(self, name)
            if type(count) is not int or not 0 <= count <= MAX_COUNT:
                setattr(self, name, bounded_count(count))
        self.cost_usd = bounded_cost(self.cost_usd)


COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


class Block(Struct):
    """A content block of any type; only the fields of its type are set."""

    type: str
    text: str = ""
    thinking: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")
    tool_use_id: str = ""
    content: Raw = Raw(b'""')
    is_error: bool | None = None


class Message(Struct):
    """A message of the API."""

    id: str = ""
    model: str = ""
    content: list[Block] | str = field(default_factory=list)
    usage: Tokens | None = None


class Delta(Struct, gc=False):
    """A delta of any type. Its text may begin or end with half a surrogate pair."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    stop_reason: str | None = None


class ApiEvent(Struct):
    """An event of the API's stream, of any type."""

    type: str
    index: Index = 0
    delta: Delta | None = None
    message: Message | None = None
    usage: Tokens | None = None


class Abandoned(Struct):
    """The blocks of a broken stream that are void."""

    api_message_id: str = ""
    from_block_index: Index = 0


class Frame(Struct):
    """The fields that most lines have."""

    session_id: str = ""
    parent_tool_use_id: str | None = None


class StreamEvent(Frame, tag_field="type", tag="stream_event"):
    """An event of the API's stream, passed on."""

    event: ApiEvent = field(default_factory=lambda: ApiEvent(""))
    abandoned_blocks: Abandoned | None = None


class Assistant(Frame, tag_field="type", tag="assistant"):
    """One finished block of the agent."""

    message: Message = field(default_factory=Message)
    error: str | None = None


class User(Frame, tag_field="type", tag="user"):
    """A tool's result, or a note of the CLI to the model."""

    message: Message = field(default_factory=Message)


class Lifecycle(Frame, tag_field="type", tag="command_lifecycle"):
    """A step in the life of a message that was written to the CLI."""

    command_uuid: str = ""
    state: str = ""


class McpStatus(Struct, gc=False):
    """An MCP server of the agent and whether it is connected."""

    name: str = ""
    status: str = ""


class System(Frame, tag_field="type", tag="system"):
    """A line of the CLI about itself; only the fields of its subtype are set."""

    subtype: str = ""
    state: str = ""
    status: str | None = None
    model: str = ""
    claude_code_version: str = ""
    tools: list[str] = field(default_factory=list)
    mcp_servers: list[McpStatus] = field(default_factory=list)
    tasks: list[Raw] = field(default_factory=list)
    attempt: int = 0
    max_retries: int = 0
    retry_delay_ms: float | None = 0.0
    error_status: int | None = None
    permission_mode: str = field(default="", name="permissionMode")
    cwd: str = ""
    trigger: str = ""
    original_model: str = ""
    fallback_model: str = ""

    def __post_init__(self) -> None:
        self.retry_delay_ms = bounded(self.retry_delay_ms, MAX_DELAY_MS)


class Result(Frame, tag_field="type", tag="result"):
    """The report on a turn."""

    subtype: str = ""
    is_error: bool = False
    result: str = ""
    stop_reason: str | None = None
    terminal_reason: str | None = None
    api_error_status: int | None = None
    api_error_type: str | None = None
    num_turns: int = 0
    result_index: int | None = None
    user_message_uuids: list[str] = field(default_factory=list)
    total_cost_usd: float | None = 0.0
    structured_output: Raw | UnsetType = UNSET
    usage: Tokens | None = None
    model_usage: dict[str, ModelUsage] = field(default_factory=dict, name="modelUsage")
    since_last: dict[str, ModelUsage] | None = field(
        default=None, name="model_usage_since_last_result"
    )

    def __post_init__(self) -> None:
        self.total_cost_usd = bounded_cost(self.total_cost_usd)
        if self.api_error_status is not None:
            self.api_error_status = int(bounded(self.api_error_status, MAX_STATUS))


class Asked(Struct):
    """The body of a control request of the CLI."""

    subtype: str = ""
    tool_name: str = ""
    tool_use_id: str = ""
    input: Raw = Raw(b"{}")
    title: str | None = None
    decision_reason: str | None = None


class ControlRequest(Frame, tag_field="type", tag="control_request"):
    """A request of the CLI that waits for an answer."""

    request_id: RequestId = ""
    request: Asked = field(default_factory=Asked)


class ControlCancel(Frame, tag_field="type", tag="control_cancel_request"):
    """The withdrawal of a request of the CLI."""

    request_id: RequestId = ""


class Reply(Struct):
    """An answer of the CLI; `response` is kept as it is."""

    subtype: str = ""
    request_id: str = ""
    response: Raw = Raw(b"{}")
    error: str = ""


class ControlResponse(Frame, tag_field="type", tag="control_response"):
    """The CLI's answer to a control request."""

    response: Reply = field(default_factory=Reply)


class RateLimitInfo(Struct):
    """The caller's standing with the API's rate limits."""

    status: str = ""
    resets_at: float | None = field(default=None, name="resetsAt")  # seconds since the epoch

    def __post_init__(self) -> None:
        if self.resets_at is not None:
            self.resets_at = bounded(self.resets_at, MAX_TIME)


class RateLimit(Frame, tag_field="type", tag="rate_limit_event"):
    """A change of the rate limits' state."""

    rate_limit_info: RateLimitInfo = field(default_factory=RateLimitInfo)


class KeepAlive(Frame, tag_field="type", tag="keep_alive"):
    """A sign of life."""


class ToolProgress(Frame, tag_field="type", tag="tool_progress"):
    """A sign that a tool still runs."""


class ConversationReset(Frame, tag_field="type", tag="conversation_reset"):
    """A notice that the conversation was cleared."""


class Unknown(Frame):
    """A line of a type, or a shape, that is not known here."""

    type: str = ""
    subtype: str = ""
    request_id: str = ""


Known = (
    StreamEvent
    | Assistant
    | User
    | Lifecycle
    | System
    | Result
    | ControlRequest
    | ControlCancel
    | ControlResponse
    | RateLimit
    | KeepAlive
    | ToolProgress
    | ConversationReset
)
