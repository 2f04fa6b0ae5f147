"""Convert the frames of one turn to events.

Knows which frame makes which event. Whether a frame belongs to the turn is decided before. A mapper
lives as long as its turn.
"""

import hashlib
from typing import TypeVar

import msgspec

from samovard.agent import frames as f
from samovard.agent.codec import ascii_json
from samovard.agent.progress import SYNTHETIC
from samovard.agent.report import MAX_TEXT, cut, merged, pieces, tokens
from samovard.core import events as ev
from samovard.core.events import Resolution, Usage
from samovard.core.process import EventOptions

Told = TypeVar("Told", bound=ev.Event)
Said = ev.TextDelta | ev.ThinkingDelta

MAX_SHORT = 4096  # characters of a name or a sentence
#: The most blocks and tools of one line that become events. The CLI writes a line for each block
#: (measured on 2.1.330), and each event repeats the ids of its line.
MAX_BLOCKS = 1024

_SILENT_SYSTEM = (
    "status",
    "session_state_changed",
    "background_tasks_changed",
    "thinking_tokens",
    "permission_denied",
    "commands_changed",
    "session_title_changed",
)
_FALLBACKS = ("model_fallback", "model_refusal_fallback")
_SILENT_PREFIXES = ("task_", "ui_", "hook_")
_SILENT = (
    f.Lifecycle,
    f.ControlResponse,
    f.KeepAlive,
    f.ToolProgress,
    f.Result,
)


class EventMapper:
    """Maker of the events of one turn, in order."""

    def __init__(self, options: EventOptions) -> None:
        self._partial = options.partial
        self._thinking = options.thinking
        self._raw = options.raw_json
        self._raw_unrecognized = options.raw_unrecognized
        self._message_id = ""  # of the message that is streaming
        self._started: f.Tokens | None = None  # its usage at its start
        self._spent = Usage()  # of the messages before it
        self._streamed: set[tuple[str, int]] = set()  # blocks that had deltas
        self._halves: dict[tuple[str, int], tuple[type[Said], str]] = {}  # of pairs, by block
        self._blocks: dict[str, int] = {}  # finished blocks by message
        self._tools: set[str] = set()
        self._parents: dict[str, str] = {}  # by a sub-agent's call: the call that began it

    @property
    def spent(self) -> Usage:
        """The usage of the main agent's messages so far, including the one that is streaming."""
        return self._spent + tokens(self._started)

    def events_of(self, frame: f.Frame, line: bytes) -> list[ev.Event]:
        """Return the events of one frame, perhaps none."""
        if type(frame) is f.StreamEvent:
            events = self._stream(frame)
        elif type(frame) is f.Assistant:
            events = self._assistant(frame)
        elif type(frame) is f.User:
            events = self._results(frame)
        elif type(frame) is f.System:
            events = self._system(frame)
        elif type(frame) is f.RateLimit:
            events = self._rate_limit(frame)
        elif type(frame) is f.ControlRequest:
            events = [self._asked(frame.request_id, frame.request)]
        elif type(frame) is f.ControlCancel:
            events = [ev.PermissionResolved(frame.request_id, Resolution.WITHDRAWN)]
        elif isinstance(frame, _SILENT):
            return []
        else:
            events = [_unrecognized(frame)]
        if events:
            events[0] = self.with_line(events[0], frame, line)
        return events

    def with_line(self, event: Told, frame: f.Frame, line: bytes) -> Told:
        """Return an event together with what is to be reported of the line that it was made
        from.
        """
        asked = self._raw or (self._raw_unrecognized and isinstance(event, ev.Unrecognized))
        raw = line if asked and len(line) <= MAX_TEXT else b""
        return msgspec.structs.replace(
            event,
            raw=raw,
            raw_bytes=len(line),
            parent_tool_use_id=_id(frame.parent_tool_use_id or "") or event.parent_tool_use_id,
        )

    # The API's stream, which the CLI passes on for the main agent only.

    def _stream(self, frame: f.StreamEvent) -> list[ev.Event]:
        event = frame.event
        if event.type == "content_block_delta":
            return self._delta(event)
        if event.type == "message_start" and event.message is not None:
            self._message_id = _id(event.message.id)
            self._started = event.message.usage
        elif event.type == "content_block_stop" and self._halves:
            return self._stopped((self._message_id, event.index))
        elif event.type == "message_delta":
            return self._usage(event)
        elif event.type == "message_stop" and frame.abandoned_blocks is not None:
            return self._abandoned(frame.abandoned_blocks)
        return []

    def _delta(self, event: f.ApiEvent) -> list[ev.Event]:
        delta = event.delta
        if delta is None or not self._partial:
            return []
        make: type[Said]
        if delta.type == "text_delta":
            make, text = ev.TextDelta, delta.text
        elif delta.type == "thinking_delta" and self._thinking:
            make, text = ev.ThinkingDelta, delta.thinking
        else:
            return []
        block = (self._message_id, event.index)
        self._streamed.add(block)
        if self._halves or not text.isascii():
            text = self._joined(block, make, text)
        return [make(*block, part) for part in pieces(text)]

    def _joined(self, block: tuple[str, int], make: type[Said], text: str) -> str:
        """Return a delta's text with surrogate pairs joined; a trailing half is kept for later.

        The API splits text anywhere: a split pair is one character that spans two deltas.
        """
        _, half = self._halves.pop(block, (make, ""))
        text = half + text
        if "\ud800" <= text[-1:] <= "\udbff":
            self._halves[block] = make, text[-1]
            text = text[:-1]
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def _stopped(self, block: tuple[str, int]) -> list[ev.Event]:
        """Return the last event of a block whose text ends with half a surrogate pair."""
        make, half = self._halves.pop(block, (ev.TextDelta, ""))
        return [make(*block, "\ufffd")] if half else []

    def _usage(self, event: f.ApiEvent) -> list[ev.Event]:
        self._spent += merged(self._started, event.usage)
        self._started = None
        return [ev.UsageUpdated(self._spent)]

    def _abandoned(self, void: f.Abandoned) -> list[ev.Event]:
        voided = _id(void.api_message_id)
        told = any(
            message == voided and index >= void.from_block_index
            for message, index in self._streamed
        )
        return [ev.BlocksAbandoned(voided, void.from_block_index)] if told else []

    # Finished blocks: one line each, without a number of their own.

    def _assistant(self, frame: f.Assistant) -> list[ev.Event]:
        message = frame.message
        if message.model == SYNTHETIC or frame.error or isinstance(message.content, str):
            return []
        events: list[ev.Event] = []
        message_id = _id(message.id)
        for block in message.content[:MAX_BLOCKS]:
            index = self._blocks.get(message_id, 0)
            self._blocks[message_id] = index + 1
            events += self._block(message_id, index, block)
        events += _left_out(message.content)
        parent = _id(frame.parent_tool_use_id or "")
        if parent:
            uses = (event.tool_use_id for event in events if isinstance(event, ev.ToolUse))
            self._parents.update(dict.fromkeys(uses, parent))
            events = [msgspec.structs.replace(e, parent_tool_use_id=parent) for e in events]
        return events

    def _block(self, message_id: str, index: int, block: f.Block) -> list[ev.Event]:
        if block.type == "tool_use" and (tool := _id(block.id)) not in self._tools:
            self._tools.add(tool)
            text, missing = cut(ascii_json(block.input))
            return [ev.ToolUse(tool, _short(block.name), text, missing)]
        if (message_id, index) in self._streamed:
            return []
        if block.type == "text":
            return [ev.TextDelta(message_id, index, part) for part in pieces(block.text)]
        if block.type == "thinking" and self._thinking:
            return [ev.ThinkingDelta(message_id, index, p) for p in pieces(block.thinking)]
        return []

    def _results(self, frame: f.User) -> list[ev.Event]:
        content = frame.message.content
        blocks = [] if isinstance(content, str) else content
        told = [_result(block) for block in blocks[:MAX_BLOCKS] if block.type == "tool_result"]
        return [*told, *_left_out(blocks)]

    # Requests of the CLI.

    def _asked(self, request_id: str, asked: f.Asked) -> ev.Event:
        text, missing = cut(ascii_json(asked.input))
        tool = _id(asked.tool_use_id)
        return ev.PermissionRequested(
            request_id,
            tool,
            _short(asked.tool_name),
            text,
            missing,
            # Not its `description`, which may be in the model's own words.
            title=_short(asked.title or ""),
            reason=_short(asked.decision_reason or ""),
            parent_tool_use_id=self._parents.get(tool, ""),
        )

    # Lines of the CLI about itself.

    def _system(self, frame: f.System) -> list[ev.Event]:
        subtype = frame.subtype
        if subtype == "init":
            tools = tuple(map(_id, frame.tools[:MAX_BLOCKS]))
            info = ev.AgentInfo(_short(frame.model), _short(frame.claude_code_version), tools)
            return [info, *_missing(frame.mcp_servers)]
        if subtype == "api_retry":
            again = f"attempt {frame.attempt} of {frame.max_retries} failed; trying again"
            return [ev.Notice("api-retry", again)]
        if subtype == "compact_boundary":
            return [ev.Notice("context-compacted", "the conversation was shortened")]
        if subtype in _FALLBACKS:
            models = f"{_short(frame.fallback_model)} answers for {_short(frame.original_model)}"
            return [ev.Notice("model-fallback", f"{models} ({_short(frame.trigger)})")]
        if subtype == "session_writes_lost":
            lost = "the transcript could not be written: the session may not be resumable"
            return [ev.Notice("writes-lost", lost)]
        if subtype in _SILENT_SYSTEM or subtype.startswith(_SILENT_PREFIXES):
            return []
        return [ev.Unrecognized("system", _short(subtype))]

    def _rate_limit(self, frame: f.RateLimit) -> list[ev.Event]:
        status = frame.rate_limit_info.status
        if status == "allowed":
            return []
        warned = status == "allowed_warning"
        what = "will soon limit" if warned else "limits"
        return [ev.Notice("rate-limited", f"the model's API {what} the rate of requests")]


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHORT else f"{text[: MAX_SHORT - 1]}…"


def _id(text: str) -> str:
    """Return an id.

    One that is too long is cut and ends with its digest, so that ids stay unique.
    """
    if len(text) <= f.MAX_ID:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
    return text[: f.MAX_ID - len(digest)] + digest


def _left_out(blocks: list[f.Block]) -> list[ev.Event]:
    more = len(blocks) - MAX_BLOCKS
    told = f"{more} blocks were left out: the agent's line has {len(blocks)}"
    return [ev.Notice("blocks-left-out", told)] if more > 0 else []


def _missing(servers: list[f.McpStatus]) -> list[ev.Event]:
    """Return a notice for each MCP server that is not connected."""
    return [
        ev.Notice(
            "mcp-server-missing",
            f"the MCP server {_short(s.name)} is not connected ({_short(s.status)}): "
            "its tools are missing",
        )
        for s in servers[:MAX_BLOCKS]
        if s.status != "connected"
    ]


def _unrecognized(frame: f.Frame) -> ev.Event:
    if isinstance(frame, f.Unknown):
        return ev.Unrecognized(cut(frame.type)[0], cut(frame.subtype)[0])
    return ev.Unrecognized(type(frame).__name__, "")


def _result(block: f.Block) -> ev.Event:
    text, missing = cut(_text_of(block.content))
    return ev.ToolResult(_id(block.tool_use_id), text, bool(block.is_error), missing)


def _text_of(content: msgspec.Raw) -> str:
    """Return the text of a tool's result, which is a string or a list of blocks."""
    try:
        read = msgspec.json.decode(content, type=str | list[f.Block])
    except msgspec.ValidationError:
        return ""
    if isinstance(read, str):
        return read
    return "".join(block.text for block in read if block.type == "text")
