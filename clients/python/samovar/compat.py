"""A client for programs that kept a `claude` process alive by hand.

It makes plain dictionaries in the shape of the CLI's `stream-json` lines (claude 2.1.330) from
typed events. Knows nothing of channels, or of how a process works.
"""

import json
import threading
import uuid
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from samovar import unasked
from samovar.client import Client, Turn
from samovar.errors import RequestInvalid, SessionNotFound, TurnNotFound, TurnWithdrawn
from samovar.events import (
    AgentInfo,
    BlocksAbandoned,
    Event,
    Outcome,
    PermissionRequested,
    TextDelta,
    ThinkingDelta,
    ToolResult,
    ToolUse,
    TurnFinished,
    TurnStarted,
    UsageUpdated,
)
from samovar.requests import Block
from samovar.transport import DEFAULT_TARGET, Tls

Json = dict[str, Any]

#: A shorter text always fits into one piece of 1 MiB, and so ends its block.
_SURELY_WHOLE = 1 << 18
#: The service's names of fields of a configuration that it may refuse.
_REFUSED = {"spec.model": "model", "spec.profile": "profile", "session_id": "session"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamingConfig:
    """How a conversation is held.

    `model`, `profile` and `append_system_prompt` are fixed for the life of the session;
    empty means as the service says. `session` names it, None for one of the client's own.
    `target`, `api_key` and `tls` are those of `samovar.Client`. `timeout` bounds each turn,
    waiting included, in seconds; None for no bound. With `include_partial_messages` text
    also comes as it is produced. With `close_on_exit` the client ends the session for good
    when it closes; else the conversation can be gone on with, under its name.
    """

    model: str = ""
    append_system_prompt: str = ""
    session: str | None = None
    profile: str = ""
    target: str = DEFAULT_TARGET
    api_key: str | None = field(default=None, repr=False)
    tls: Tls | bool | None = None
    include_partial_messages: bool = False
    timeout: float | None = 10 * 60.0
    close_on_exit: bool = False


class BidirectionalStreamingClient:
    """A client of one conversation. A context manager; safe to use from several threads.

    `session` is the session's name, which is the `session_id` of all dictionaries; `pid`
    the process of the last turn that began, on the service's machine, None before the first.
    """

    def __init__(self, config: StreamingConfig | None = None) -> None:
        self.config = config or StreamingConfig()
        self.session = self.config.session or str(uuid.uuid4())
        self.pid: int | None = None
        self._client = Client(
            self.config.target,
            api_key=self.config.api_key,
            tls=self.config.tls,
            deadline=self.config.timeout,
        )
        self._lock = threading.Lock()
        self._turns: list[Turn] = []
        self._spent = 0.0
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def send_message(self, content: Block | Sequence[Block]) -> Generator[Json, None, None]:
        """Run one turn and yield its events as dictionaries, a `result` last.

        Nothing is sent before the first one is asked for; leaving the loop interrupts the
        turn. A tool that needs permission is denied, as a CLI that runs alone denies it.
        A failure of the agent is in the `result`. Raise `SamovarError`: `RequestInvalid` for a
        model that the profile does not allow, `DeadlineExceeded` after `timeout`.
        """
        story = _Story(self.session, self._spend, partial=self.config.include_partial_messages)
        with self._begin(content) as turn:
            self._turns.append(turn)
            try:
                for event in turn:
                    if isinstance(event, TurnStarted):
                        self.pid = event.pid
                    elif isinstance(event, PermissionRequested):
                        unasked.deny(self._client, self.session, event)
                    yield from story.tell(event)
            except TurnWithdrawn:
                yield from story.tell(_WITHDRAWN)
            except RequestInvalid as error:
                raise _named(error, self.config) from None
            finally:
                self._turns.remove(turn)

    def interrupt(self) -> bool:
        """Interrupt what runs or waits, from another thread. Return True if there was anything.

        The interrupted `send_message` ends with a `result` as the CLI's own does.
        """
        # The last first: otherwise a waiting one would begin when the one before it ends.
        stopped = [self._interrupt(turn) for turn in reversed(tuple(self._turns))]
        return any(stopped)

    def close(self) -> None:
        """Cancel what is open, and end the session if the configuration says so. Idempotent."""
        closed, self._closed = self._closed, True
        try:
            if self.config.close_on_exit and not closed:
                self._client.close_session(self.session)
        finally:
            self._client.close()

    def _begin(self, content: Block | Sequence[Block]) -> Turn:
        config = self.config
        return self._client.send(
            content,
            session=self.session,
            profile=config.profile,
            model=config.model,
            append_system_prompt=config.append_system_prompt,
            partial=config.include_partial_messages,
            thinking=True,
        )

    def _interrupt(self, turn: Turn) -> bool:
        try:
            return self._client.interrupt(turn.turn_id, turn.session)
        except (SessionNotFound, TurnNotFound):
            return False  # the service has not heard of it yet

    def _spend(self, cost: float) -> float:
        with self._lock:
            self._spent += cost
            return self._spent


def _named(error: RequestInvalid, config: StreamingConfig) -> RequestInvalid:
    """Return a refusal in the words of the configuration."""
    told = []
    for violation, what in error.violations:
        name = _REFUSED.get(violation)
        told.append(f"{name} {getattr(config, name)!r}: {what}" if name else f"{violation}: {what}")
    return RequestInvalid(
        "; ".join(told) or str(error),
        code=error.code,
        reason=error.reason,
        metadata=error.metadata,
        violations=error.violations,
    )


@dataclass(slots=True)
class _Spoken:
    """A block that is still growing."""

    message_id: str
    index: int
    kind: str  # `text` or `thinking`, as the type and as the field
    pieces: list[str] = field(default_factory=list)


class _Story:
    """Converter of one turn to dictionaries. `spend` adds a cost and returns the client's total."""

    def __init__(self, session: str, spend: Callable[[float], float], *, partial: bool) -> None:
        self._session = session
        self._spend = spend
        self._partial = partial
        self._open: dict[str, _Spoken] = {}  # by the sub-agent's tool call, empty for the main one
        self._text = ""  # the last block that the main agent said

    def tell(self, event: Event) -> list[Json]:
        """Return the dictionaries of one event, perhaps none."""
        parent = event.parent_tool_use_id
        match event:
            case AgentInfo():
                return [self._init(event)]
            case TextDelta() | ThinkingDelta():
                return self._spoken(event)
            case BlocksAbandoned():
                return self._abandoned(event)
            case ToolUse():
                return [*self._whole(parent), self._assistant(parent, _tool_use(event))]
            case ToolResult():
                return [*self._whole(parent), self._user(parent, _tool_result(event))]
            case UsageUpdated():  # the message is over
                return self._whole(parent)
            case TurnFinished():
                whole = [said for parent in tuple(self._open) for said in self._whole(parent)]
                return [*whole, self._result(event)]
        return []

    def _spoken(self, event: TextDelta | ThinkingDelta) -> list[Json]:
        parent = event.parent_tool_use_id
        told: list[Json] = []
        block = self._open.get(parent)
        if block is None or (block.message_id, block.index) != (
            event.message_id,
            event.block_index,
        ):
            told += self._whole(parent)
            kind = "text" if isinstance(event, TextDelta) else "thinking"
            block = self._open[parent] = _Spoken(event.message_id, event.block_index, kind)
        block.pieces.append(event.text)
        if self._partial and not parent:  # the CLI streams the main agent only
            delta = {"type": f"{block.kind}_delta", block.kind: event.text}
            api = {"type": "content_block_delta", "index": block.index, "delta": delta}
            told.append(self._line("stream_event", parent, event=api))
        elif len(event.text) < _SURELY_WHOLE:
            told += self._whole(parent)
        return told

    def _whole(self, parent: str) -> list[Json]:
        """End the open block, if there is one."""
        block = self._open.pop(parent, None)
        if block is None:
            return []
        text = "".join(block.pieces)
        if block.kind == "text" and not parent:
            self._text = text
        return [self._assistant(parent, {"type": block.kind, block.kind: text})]

    def _abandoned(self, event: BlocksAbandoned) -> list[Json]:
        parent = event.parent_tool_use_id
        block = self._open.get(parent)
        first = event.from_block_index
        if block and block.message_id == event.message_id and block.index >= first:
            del self._open[parent]
        void = {"api_message_id": event.message_id, "from_block_index": first}
        stop = self._line("stream_event", parent, event={"type": "message_stop"})
        return [stop | {"abandoned_blocks": void}] if self._partial else []

    def _init(self, event: AgentInfo) -> Json:
        return {
            "type": "system",
            "subtype": "init",
            "model": event.model,
            "session_id": self._session,
            "tools": list(event.tools),
            "claude_code_version": event.agent_version,
        }

    def _assistant(self, parent: str, block: Json) -> Json:
        return self._line("assistant", parent, message={"role": "assistant", "content": [block]})

    def _user(self, parent: str, block: Json) -> Json:
        return self._line("user", parent, message={"role": "user", "content": [block]})

    def _line(self, kind: str, parent: str, **fields: Json) -> Json:
        ids = {"parent_tool_use_id": parent or None, "session_id": self._session}
        return {"type": kind, **fields, **ids}

    def _result(self, event: TurnFinished) -> Json:
        usage, timings = event.usage, event.timings
        began, ended = timings.prompt_write, timings.finish
        return {
            "type": "result",
            **self._ending(event),
            "duration_ms": round(1000 * (ended - began)) if began and ended else 0,
            "num_turns": event.agent_steps,
            "stop_reason": event.stop_reason or None,
            "session_id": self._session,
            "total_cost_usd": self._spend(usage.cost_usd),
            "usage": {
                "input_tokens": usage.input_tokens,
                "output_tokens": usage.output_tokens,
                "cache_read_input_tokens": usage.cache_read_input_tokens,
                "cache_creation_input_tokens": usage.cache_creation_input_tokens,
            },
        }

    def _ending(self, event: TurnFinished) -> Json:
        """Return the fields that differ between outcomes, as the CLI writes them.

        In the CLI's lines a failed call of the model's API is a `success`, and no error has a
        `result`.
        """
        errors = list(event.errors)
        if event.outcome is Outcome.COMPLETED:
            text = self._text if event.result_truncated_bytes else event.result
            return {"subtype": "success", "is_error": False, "result": text}
        if event.outcome is Outcome.FAILED and event.upstream_status:
            failed = {"subtype": "success", "is_error": True, "result": "; ".join(errors)}
            return failed | {"api_error_status": event.upstream_status}
        if event.outcome is Outcome.LIMIT_REACHED:
            errors = ["a limit of the turn was reached"]
            return {"subtype": "error_max_turns", "is_error": True, "errors": errors}
        if event.outcome is Outcome.INTERRUPTED:
            errors = ["the turn was interrupted"]
        return {"subtype": "error_during_execution", "is_error": True, "errors": errors}


#: A turn that was interrupted before the agent had its message.
_WITHDRAWN = TurnFinished(Outcome.INTERRUPTED, "", sequence=0, time=0.0)


def _tool_use(event: ToolUse) -> Json:
    """Return the block of a tool call; an input that was cut is not JSON, and stays a string."""
    block = {"type": "tool_use", "id": event.tool_use_id, "name": event.tool_name}
    if event.input_truncated_bytes:
        cut = {"input_truncated_bytes": event.input_truncated_bytes}
        return {**block, "input": {}, "input_json": event.input_json, **cut}
    return {**block, "input": json.loads(event.input_json)}


def _tool_result(event: ToolResult) -> Json:
    return {
        "type": "tool_result",
        "tool_use_id": event.tool_use_id,
        "content": event.text,
        "is_error": event.is_error,
    }
