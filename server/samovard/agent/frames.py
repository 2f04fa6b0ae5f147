"""The lines of the CLI's wire, as far as they are read: what each holds.

Field names are the wire's own. Knows nothing of what a line means. Measured on claude
2.1.330; an unknown type, or a known one of another shape, becomes `Unknown`.
"""

from msgspec import UNSET, Raw, Struct, UnsetType, field


class Tokens(Struct, gc=False):
    """Token counts of the API; those that a line leaves out are UNSET."""

    input_tokens: int | UnsetType | None = UNSET
    output_tokens: int | UnsetType | None = UNSET
    cache_read_input_tokens: int | UnsetType | None = UNSET
    cache_creation_input_tokens: int | UnsetType | None = UNSET


class ModelUsage(Struct, gc=False):
    """What a model has used, in the CLI's own spelling; the cost in US dollars."""

    input_tokens: int = field(default=0, name="inputTokens")
    output_tokens: int = field(default=0, name="outputTokens")
    cache_read_input_tokens: int = field(default=0, name="cacheReadInputTokens")
    cache_creation_input_tokens: int = field(default=0, name="cacheCreationInputTokens")
    cost_usd: float = field(default=0.0, name="costUSD")


class Block(Struct):
    """A content block of any type: those fields are set that its type has."""

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
    """A delta of any type."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    stop_reason: str | None = None


class ApiEvent(Struct):
    """An event of the API's stream, of any type."""

    type: str
    index: int = 0
    delta: Delta | None = None
    message: Message | None = None
    usage: Tokens | None = None


class Abandoned(Struct):
    """Blocks of a broken stream that are void."""

    api_message_id: str = ""
    from_block_index: int = 0


class Frame(Struct):
    """What most lines have."""

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


class System(Frame, tag_field="type", tag="system"):
    """A line of the CLI about itself: those fields are set that its subtype has."""

    subtype: str = ""
    state: str = ""
    status: str | None = None
    model: str = ""
    claude_code_version: str = ""
    tools: list[str] = field(default_factory=list)
    tasks: list[Raw] = field(default_factory=list)
    attempt: int = 0
    max_retries: int = 0
    retry_delay_ms: float = 0.0
    error_status: int | None = None
    permission_mode: str = field(default="", name="permissionMode")
    cwd: str = ""
    trigger: str = ""
    original_model: str = ""
    fallback_model: str = ""


class Result(Frame, tag_field="type", tag="result"):
    """The report on a turn."""

    subtype: str = ""
    is_error: bool = False
    result: str = ""
    stop_reason: str | None = None
    terminal_reason: str | None = None
    api_error_status: int | None = None
    num_turns: int = 0
    result_index: int | None = None
    user_message_uuids: list[str] = field(default_factory=list)
    total_cost_usd: float = 0.0
    structured_output: Raw | UnsetType = UNSET
    usage: Tokens | None = None
    model_usage: dict[str, ModelUsage] = field(default_factory=dict, name="modelUsage")
    since_last: dict[str, ModelUsage] | None = field(
        default=None, name="model_usage_since_last_result"
    )


class Asked(Struct):
    """What a control request of the CLI asks."""

    subtype: str = ""
    tool_name: str = ""
    tool_use_id: str = ""
    input: Raw = Raw(b"{}")
    title: str | None = None
    decision_reason: str | None = None


class ControlRequest(Frame, tag_field="type", tag="control_request"):
    """The CLI asks something and waits for the answer."""

    request_id: str = ""
    request: Asked = field(default_factory=Asked)


class ControlCancel(Frame, tag_field="type", tag="control_cancel_request"):
    """The CLI no longer asks."""

    request_id: str = ""


class Reply(Struct):
    """An answer of the CLI; `response` is kept as it is."""

    subtype: str = ""
    request_id: str = ""
    response: Raw = Raw(b"{}")
    error: str = ""


class ControlResponse(Frame, tag_field="type", tag="control_response"):
    """The CLI answers a control request."""

    response: Reply = field(default_factory=Reply)


class RateLimitInfo(Struct):
    """Where the caller stands with the API's limits."""

    status: str = ""
    resets_at: float | None = field(default=None, name="resetsAt")  # seconds since the epoch


class RateLimit(Frame, tag_field="type", tag="rate_limit_event"):
    """A change in that."""

    rate_limit_info: RateLimitInfo = field(default_factory=RateLimitInfo)


class KeepAlive(Frame, tag_field="type", tag="keep_alive"):
    """A sign of life."""


class ToolProgress(Frame, tag_field="type", tag="tool_progress"):
    """A tool still runs."""


class ConversationReset(Frame, tag_field="type", tag="conversation_reset"):
    """Somebody cleared the conversation."""


class Unknown(Frame):
    """A line of a type, or a shape, that has no name here."""

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
