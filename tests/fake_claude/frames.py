"""Build the lines of stdout, with the fields recorded for 2.1.330. Writes nothing.

Every line has a `uuid` that no other line of the process has: the pid and a count.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

VERSION = "2.1.330"
CAPABILITIES = ["interrupt_receipt_v1", "interrupt_cancel_queued_v1", "msg_lifecycle_v1"]
TIMESTAMP = "2026-01-01T00:00:00.000Z"
START_TOKENS = {
    "input_tokens": 10,
    "output_tokens": 1,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
}
_ERROR_TYPES = {
    401: "authentication_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_ERRORS = {401: "authentication_failed", 429: "rate_limit"}
_SYNTHETIC = {
    "model": "<synthetic>",
    "stop_reason": "stop_sequence",
    "stop_sequence": "",
    "stop_details": None,
    "diagnostics": None,
    "container": None,
    "usage": {
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens_details": None,
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        "service_tier": None,
        "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
        "inference_geo": None,
        "iterations": None,
        "speed": None,
        "fallback_credit": None,
    },
}
_PRICES = {"claude-sonnet-5-5": 2e-6}  # of a token in; one out costs five times that
_FAST_MODE = {"fast_mode_state": "off", "fast_mode_disabled_reason": "sdk_opt_in_required"}
_SUCCESS_ONLY = {
    "ttft_ms": 20,
    "ttft_stream_ms": 19,
    "time_to_request_ms": 15,
    "first_content_frame_ms": 19,
}
_REQUEST_ONLY = {
    "request_sent_wall_ms": 1767225600000,
    "first_request_input_tokens": 10,
    "first_request_cache_read_input_tokens": 0,
}


@dataclass(slots=True)
class Outcome:
    """The content of a turn's `result`. `uuids` is empty for a turn that was not asked for."""

    uuids: list[str]
    text: str = ""
    terminal_reason: str = "completed"
    stop_reason: str | None = "end_turn"
    num_turns: int = 1
    denials: list[Json] = field(default_factory=list)
    message_ids: list[str] | None = None  # None without partial messages
    status: int = 0


class Frames:
    """The lines of one process."""

    def __init__(self, session_id: str, model: str, mode: str, key_source: str) -> None:
        self.session_id = session_id
        self.model = model
        self.mode = mode
        self._key_source = key_source
        self._count = 0
        self._messages = 0

    def uuid(self) -> str:
        self._count += 1
        return f"{os.getpid():08x}-0000-4000-8000-{self._count:012x}"

    def message_id(self) -> str:
        self._messages += 1
        return f"msg_{os.getpid()}_{self._messages:02d}"

    def ids(self) -> Json:
        return {"uuid": self.uuid(), "session_id": self.session_id}

    def system(self, subtype: str, **fields: object) -> Json:
        return {"type": "system", "subtype": subtype, **fields, **self.ids()}

    def state(self, state: str) -> Json:
        return self.system("session_state_changed", state=state)

    def lifecycle(self, command: str, state: str) -> Json:
        return {"type": "command_lifecycle", "command_uuid": command, "state": state, **self.ids()}

    def init(self, uuids: list[str], capabilities: list[str]) -> Json:
        tmp = os.environ.get("CLAUDE_CODE_TMPDIR") or os.environ.get("TMPDIR") or "/tmp"
        line = self.system(
            "init",
            cwd=os.getcwd(),
            tools=["Bash", "Read", "Write"],
            mcp_servers=[],
            model=self.model,
            permissionMode=self.mode,
            slash_commands=[],
            apiKeySource=self._key_source,
            claude_code_version=VERSION,
            output_style="default",
            agents=["Explore"],
            skills=[],
            plugins=[],
            capabilities=[*capabilities, "request_marker_lists_v1"],
            analytics_disabled=True,
            product_feedback_disabled=True,
            served_by_anthropic=False,
            original_cwd=os.getcwd(),
            additional_directories=[],
            messaging_socket_path=f"{tmp}/cc-socks/{os.getpid()}.sock",
            **_FAST_MODE,
            per_turn_effort_active=True,
            ultrathink_available=False,
            ultrathink_typed_raises=False,
            view_mode="default",
        )
        return line | ({"user_message_uuids": uuids} if uuids else {})

    def assistant(self, message_id: str, block: Json, uuids: list[str], **extra: object) -> Json:
        message = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [block],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": START_TOKENS,
            "context_management": None,
        }
        line = self._message("assistant", message)
        return line | {"request_id": "req_fake", **extra, **_asked_by(uuids)}

    def api_error(self, text: str, status: int, uuids: list[str]) -> Json:
        line = self.assistant(self.uuid(), {"type": "text", "text": text}, uuids)
        line["message"] |= _SYNTHETIC
        error = _ERRORS.get(status, "server_error")
        line |= {"error": error, "is_api_error_message": True}
        return line | _failure(status)

    def user(self, block: Json, **extra: object) -> Json:
        return self._message("user", {"role": "user", "content": [block]}) | extra

    def _message(self, kind: str, message: Json) -> Json:
        line = {"type": kind, "message": message, "parent_tool_use_id": None}
        return line | {**self.ids(), "timestamp": TIMESTAMP}

    def event(self, message_id: str, event: Json, **extra: object) -> Json:
        line = {"type": "stream_event", "event": event, "parent_tool_use_id": None}
        return line | {**self.ids(), "api_message_id": message_id, **extra}

    def message_start(self, message_id: str, uuids: list[str]) -> Json:
        message: Json = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": START_TOKENS,
        }
        extra = {"ttft_ms": 19, "thinking_display": "updates", **_asked_by(uuids)}
        extra |= {"owed_rows": []} if uuids else {}
        return self.event(message_id, {"type": "message_start", "message": message}, **extra)

    def result(self, outcome: Outcome, totals: Totals, queued: int) -> Json:
        """Return the `result` line, and add the turn's tokens to the totals."""
        line = {
            "type": "result",
            "duration_ms": 26,
            "duration_api_ms": 20,
            "stop_reason": outcome.stop_reason,
            "permission_denials": outcome.denials,
            "terminal_reason": outcome.terminal_reason,
            **_FAST_MODE,
            "subagent_stats": {"spawned": 0},
            "safety_stops": 0,
            "num_turns": outcome.num_turns,
            "queued_turn_count": queued,
            **self.ids(),
        }
        line |= _ending(outcome) | _asked_by(outcome.uuids)
        if outcome.message_ids is not None:
            line["begun_message_ids"] = outcome.message_ids
        return line | totals.take()

    def no_conversation(self) -> Json:
        error = f"No conversation found with session ID: {self.session_id}"
        return {
            "type": "result",
            "subtype": "error_during_execution",
            "duration_ms": 0,
            "duration_api_ms": 0,
            "is_error": True,
            "num_turns": 0,
            "stop_reason": None,
            "total_cost_usd": 0,
            "usage": _usage(0, 0),
            "modelUsage": {},
            "permission_denials": [],
            "errors": [error],
            "result_index": 0,
            **self.ids(),
        }


def _asked_by(uuids: list[str]) -> Json:
    return {"user_message_uuid": uuids[-1], "user_message_uuids": uuids} if uuids else {}


def _ending(outcome: Outcome) -> Json:
    """Return the fields in which successes, interrupts and failures of the model's API differ."""
    if outcome.terminal_reason.startswith("aborted_"):
        errors = [f"[ede_diagnostic] result_type=user stop_reason={outcome.stop_reason}"]
        return {"subtype": "error_during_execution", "is_error": True, "errors": errors}
    said = {"subtype": "success", "is_error": bool(outcome.status), "result": outcome.text}
    if outcome.status:
        return said | _failure(outcome.status)
    if outcome.uuids:
        return said | {"api_error_status": None, **_SUCCESS_ONLY, **_REQUEST_ONLY}
    origin = {"kind": "task-notification", "producer": "session-task", "runId": "run_01"}
    return said | {"api_error_status": None, **_SUCCESS_ONLY, "origin": origin}


def _failure(status: int) -> Json:
    kind = _ERROR_TYPES.get(status, "api_error")
    return {"api_error_status": status, "api_error_type": kind}


def _usage(tokens_in: int, tokens_out: int) -> Json:
    return {
        "input_tokens": tokens_in,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": tokens_out,
    }


class Totals:
    """Tokens used, by model: since the last `result`, and over the life of the session."""

    def __init__(self) -> None:
        self.models: dict[str, list[int]] = {}
        self._since: dict[str, list[int]] = {}
        self._finished = [0, 0]
        self._results = 0

    def add(self, model: str, tokens_in: int, tokens_out: int, *, finished: bool) -> None:
        """Count a message; the turn's `usage` lacks one that is not finished."""
        for sums in (self.models, self._since):
            count = sums.setdefault(model, [0, 0])
            count[0] += tokens_in
            count[1] += tokens_out
        if finished:
            self._finished[0] += tokens_in
            self._finished[1] += tokens_out

    @property
    def cost(self) -> float:
        """What the session has cost, in US dollars."""
        return sum(_cost(name, *sums) for name, sums in self.models.items())

    def take(self) -> Json:
        """Return the usage fields of a `result`, and begin a new turn."""
        fields = {
            "usage": _usage(*self._finished),
            "modelUsage": _by_model(self.models),
            "model_usage_since_last_result": _by_model(self._since),
            "total_cost_usd": self.cost,
            "result_index": self._results,
        }
        self._since, self._finished = {}, [0, 0]
        self._results += 1
        return fields


def _by_model(sums: dict[str, list[int]]) -> Json:
    return {
        model: {
            "inputTokens": tokens_in,
            "outputTokens": tokens_out,
            "cacheReadInputTokens": 0,
            "cacheCreationInputTokens": 0,
            "costUSD": _cost(model, tokens_in, tokens_out),
            "thinkingTokens": 0,
        }
        for model, (tokens_in, tokens_out) in sums.items()
    }


def _cost(model: str, tokens_in: int, tokens_out: int) -> float:
    price = _PRICES.get(model, 1e-7)
    return (tokens_in + 5 * tokens_out) * price
