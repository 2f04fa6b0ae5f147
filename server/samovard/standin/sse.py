"""The events of the Messages API, as the stand-in makes them, without I/O.

Shapes are as the API documents them; the texts are arbitrary.
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from samovard.standin.steps import Step

PIECE = 4096  # characters of a large text in one delta
KINDS = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of some seconds before the next event."""

    seconds: float


Event = dict[str, Any]


def response(step: Step, model: str) -> Iterator[Event | Pause]:
    """Yield the events of one response, with its pauses."""
    counts = {"input_tokens": 10, "output_tokens": 12} | _find(step, "usage", {})
    used = _usage(counts)
    message: Event = {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": used | {"output_tokens": 1},
    }
    yield {"type": "message_start", "message": message}
    index = 0
    for verb in step:
        for event in _block(verb, index):
            yield event
            index += isinstance(event, dict) and event["type"] == "content_block_stop"
    reason = "tool_use" if any("tool" in verb for verb in step) else "end_turn"
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": reason, "stop_sequence": None},
        "usage": {"output_tokens": counts["output_tokens"]},
    }
    yield {"type": "message_stop"}


def whole(step: Step, model: str) -> dict[str, Any]:
    """Return the same response as one message, for callers that do not stream."""
    message: dict[str, Any] = {}
    blocks: list[dict[str, Any]] = []
    for event in response(step, model):
        if isinstance(event, Pause):
            continue
        match event["type"]:
            case "message_start":
                message = dict(event["message"])
            case "content_block_start":
                blocks.append(dict(event["content_block"]))
            case "content_block_delta":
                _add(blocks[-1], event["delta"])
            case "message_delta":
                message |= {"stop_reason": event["delta"]["stop_reason"]}
                message["usage"] = message["usage"] | event["usage"]
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block.pop("partial", "") or "{}")
    return message | {"content": blocks}


def error(code: int, kind: str = "", message: str = "the script says so") -> dict[str, Any]:
    """Return the body of a failed call; its type is the one that the API has for the status."""
    usual = KINDS.get(code, "invalid_request_error" if code < 500 else "api_error")
    return {"type": "error", "error": {"type": kind or usual, "message": message}}


def _block(verb: dict[str, Any], index: int) -> Iterator[Event | Pause]:
    if "text" in verb:
        yield from _said(index, _pieces(verb["text"], verb.get("deltas", 1)))
    elif "big" in verb:
        whole_pieces, rest = divmod(verb["big"], PIECE)
        yield from _said(index, ["x" * PIECE] * whole_pieces + ["x" * rest] * bool(rest))
    elif "drip" in verb:
        yield from _dripped(index, verb)
    elif "think" in verb:
        yield from _thought(index, _pieces(verb["think"], verb.get("deltas", 1)))
    elif "tool" in verb:
        yield from _called(index, verb)


def _said(index: int, parts: list[str]) -> Iterator[Event]:
    yield _start(index, {"type": "text", "text": ""})
    for part in parts:
        yield _delta(index, {"type": "text_delta", "text": part})
    yield _stop(index)


def _dripped(index: int, verb: dict[str, Any]) -> Iterator[Event | Pause]:
    yield _start(index, {"type": "text", "text": ""})
    for number in range(verb["drip"]):
        yield _delta(index, {"type": "text_delta", "text": f"{verb.get('word', 'tick')}{number} "})
        yield Pause(verb.get("seconds", 0.0))
    yield _stop(index)


def _thought(index: int, parts: list[str]) -> Iterator[Event]:
    yield _start(index, {"type": "thinking", "thinking": "", "signature": ""})
    for part in parts:
        yield _delta(index, {"type": "thinking_delta", "thinking": part})
    yield _delta(index, {"type": "signature_delta", "signature": "c3RhbmQtaW4="})
    yield _stop(index)


def _called(index: int, verb: dict[str, Any]) -> Iterator[Event]:
    call = {"type": "tool_use", "id": f"toolu_{uuid.uuid4().hex[:24]}", "name": verb["tool"]}
    yield _start(index, call | {"input": {}})
    partial = json.dumps(verb.get("input", {}))
    yield _delta(index, {"type": "input_json_delta", "partial_json": partial})
    yield _stop(index)


def _start(index: int, block: dict[str, Any]) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, delta: dict[str, Any]) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def _stop(index: int) -> Event:
    return {"type": "content_block_stop", "index": index}


def _pieces(text: str, count: int) -> list[str]:
    """Return a text in pieces of UTF-16, split as by the API: even within a character."""
    units = text.encode("utf-16-le", "surrogatepass")
    size = 2 * max(-(-len(units) // 2 // max(count, 1)), 1)
    cut = [units[i : i + size] for i in range(0, len(units), size)]
    return [piece.decode("utf-16-le", "surrogatepass") for piece in cut]


def _usage(counts: dict[str, int]) -> dict[str, int]:
    zero = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    return zero | counts


def _add(block: dict[str, Any], delta: dict[str, Any]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            block["partial"] = block.get("partial", "") + delta["partial_json"]


def _find(step: Step, key: str, default: Any) -> Any:
    return next((verb[key] for verb in step if key in verb), default)
