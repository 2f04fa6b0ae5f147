"""Convert bytes to frames, and typed values to lines, without I/O.

Knows the CLI's wire format. Knows nothing of processes, sessions or gRPC, nor of which turn a frame
belongs to. Every line written is built from typed values, never from a client's JSON.
"""

import json
import re
from typing import Any

import msgspec
from msgspec import Raw

from samovard.agent.frames import Frame, Known, StreamEvent, Unknown
from samovard.core.process import Block, Broken, Document, Image, Prompt

DENIED = "permission was not given"

#: A frame and the line that it was made from, without its newline.
Line = tuple[Frame, bytes]

# JavaScript writes half a surrogate pair as an escape; UTF-8 has no such character. One
# escape after the other is taken, so that an escaped backslash is not taken for the next.
_ESCAPE = re.compile(
    rb"(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\."
)

_known: msgspec.json.Decoder[Frame] = msgspec.json.Decoder(Known)
_unknown = msgspec.json.Decoder(Unknown)
_encoder = msgspec.json.Encoder()


class Decoder:
    """Split a CLI's output into lines and decode them, however the bytes are chunked.

    Lines that do not begin with `{` are skipped and counted in `noise`. A line that is longer than
    `max_line_bytes`, or is not JSON, ends the decoding: `failure` says why, and nothing after it is
    read.
    """

    def __init__(self, max_line_bytes: int) -> None:
        self._max = max_line_bytes
        self._partial: list[bytes] = []
        self.buffered = 0  # bytes of the incomplete line
        self.noise = 0
        self.failure: Broken | None = None

    def feed(self, data: bytes) -> list[Line]:
        """Return the frames that these bytes complete, up to the first failure."""
        if self.failure is not None:
            return []
        head, newline, rest = data.partition(b"\n")
        if not newline:
            self._keep(data)
            return []
        if self._partial:
            head = b"".join((*self._partial, head))
            self._partial.clear()
            self.buffered = 0
        *lines, tail = rest.split(b"\n")
        frames = self._decode([head, *lines])
        if tail and self.failure is None:
            self._keep(tail)
        return frames

    def _keep(self, piece: bytes) -> None:
        self._partial.append(piece)
        self.buffered += len(piece)
        if self.buffered > self._max:
            self._fail(Broken.LINE_TOO_LONG)

    def _fail(self, how: Broken) -> None:
        self.failure = how
        self._partial.clear()
        self.buffered = 0

    def _decode(self, lines: list[bytes]) -> list[Line]:
        frames: list[Line] = []
        for line in lines:
            if not line.startswith(b"{"):
                self.noise += bool(line.strip())
            elif len(line) > self._max:
                self._fail(Broken.LINE_TOO_LONG)
                break
            else:
                try:
                    # The decoder does not check strings that it skips.
                    if not line.isascii():
                        line.decode("utf-8")
                    frames.append((decode(line), line))
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    self._fail(Broken.UNPARSABLE)
                    break
        return frames


def decode(line: bytes) -> Frame:
    """Return the frame of a line.

    Raise `msgspec.DecodeError` or another error if it is not JSON.
    """
    try:
        return _known.decode(line)
    except msgspec.ValidationError:
        return _unknown_frame(line)
    except msgspec.DecodeError:
        mended = _ESCAPE.sub(lambda m: b"\\ufffd" if m.group(2) else m.group(), line)
        if mended == line:
            raise
        return _halved(decode(mended), line)


def _halved(frame: Frame, line: bytes) -> Frame:
    """Return a frame whose delta has lone surrogates as they were written.

    The API may split a surrogate pair over two deltas: a half has a meaning only with the next
    delta.
    """
    if type(frame) is StreamEvent and (delta := frame.event.delta) is not None:
        # Only texts are wanted here, no numbers: Python raises for one with very many digits.
        written = json.loads(line, parse_int=str, strict=False)["event"]["delta"]
        delta.text, delta.thinking = written.get("text", ""), written.get("thinking", "")
    return frame


def _unknown_frame(line: bytes) -> Unknown:
    try:
        return _unknown.decode(line)
    except msgspec.ValidationError:
        # Not even its type is a string; it only matters that it is JSON.
        msgspec.json.decode(line)
        return Unknown()


def ascii_json(raw: Raw) -> str:
    """Return JSON as ASCII text, with its numbers as they were written."""
    data = bytes(raw)
    if data.isascii():
        return data.decode("ascii")
    return re.sub(r"[^\x00-\x7f]", _escaped, data.decode("utf-8", "replace"))


def _escaped(match: re.Match[str]) -> str:
    units = match.group().encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


# Output.


def message(prompt: Prompt) -> bytes:
    """Return the line of a user's message: `uuid` is the turn's id.

    `client_composed` keeps the CLI from reading text as a command or as the name of a file to read
    (claude 2.1.248 and later).
    """
    return _line(
        {
            "type": "user",
            "uuid": prompt.turn_id,
            "client_composed": True,
            "message": {"role": "user", "content": [_block(b) for b in prompt.content]},
        }
    )


def initialize(request_id: str, append_system_prompt: str, json_schema: str = "") -> bytes:
    """Return the first request to a CLI. The prompt is sent here because argv is public."""
    request: dict[str, Any] = {"subtype": "initialize"}
    if json_schema:
        request["jsonSchema"] = Raw(json_schema.encode())
    if append_system_prompt:
        request["appendSystemPrompt"] = _text(append_system_prompt)
    return _request(request_id, request)


def usage(request_id: str) -> bytes:
    """Return the request for the session's cost. It delays nothing that is written later."""
    return _request(request_id, {"subtype": "get_usage", "skip_behaviors": True, "detached": True})


def interrupt(request_id: str) -> bytes:
    """Return an interrupt, which also applies to a message that has not started.

    Without `cancel_queued` such a message of a warm CLI would run to its end.
    """
    return _request(request_id, {"subtype": "interrupt", "cancel_queued": True})


def allow(request_id: str, input: Raw, changed: str = "") -> bytes:
    """Return the permission to run a tool, with its input as it was or, if not empty, as changed.

    It never permits more than this one call, though the CLI would accept that too.
    """
    updated = Raw(changed.encode()) if changed else input
    decision = {"behavior": "allow", "updatedInput": updated}
    return _response({"subtype": "success", "request_id": request_id, "response": decision})


def trace(request_id: str, traceparent: str) -> bytes:
    """Return the trace context of the turns from the next one on."""
    settings = {"env": {"TRACEPARENT": traceparent}}
    return _request(request_id, {"subtype": "apply_flag_settings", "settings": settings})


def deny(request_id: str, reason: str = "", *, interrupt: bool = False) -> bytes:
    """Return the denial of a permission; the model is told the reason.

    The reason is never empty: the API refuses a failed tool call with an empty result.
    """
    message = _text(reason) if reason.strip() else DENIED
    decision = {"behavior": "deny", "message": message, "interrupt": interrupt}
    return _response({"subtype": "success", "request_id": request_id, "response": decision})


def decline(request_id: str) -> bytes:
    """Return the answer to an MCP server's question, which no caller is asked."""
    answer = {"action": "decline"}
    return _response({"subtype": "success", "request_id": request_id, "response": answer})


def refuse(request_id: str, error: str) -> bytes:
    """Return the error that answers an unsupported request."""
    return _response({"subtype": "error", "request_id": request_id, "error": error})


def _request(request_id: str, request: dict[str, Any]) -> bytes:
    return _line({"type": "control_request", "request_id": request_id, "request": request})


def _response(response: dict[str, Any]) -> bytes:
    return _line({"type": "control_response", "response": response})


def _block(block: Block) -> dict[str, Any]:
    match block:
        case Image(media_type, data):
            return {"type": "image", "source": _source(media_type, data)}
        case Document(media_type, data, title):
            document = {"type": "document", "source": _source(media_type, data)}
            return document | ({"title": _text(title)} if title else {})
    return {"type": "text", "text": block.data.decode()}


def _source(media_type: str, data: bytes) -> dict[str, str | bytes]:
    # The encoder writes bytes as base64.
    return {"type": "base64", "media_type": media_type, "data": data}


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _line(value: dict[str, Any]) -> bytes:
    line = _encoder.encode_lines((value,))  # with its newline: adding one would copy the line
    # A newline within it would end it early and begin another line of the caller's choice.
    if line.index(b"\n") != len(line) - 1:
        raise AssertionError("a line has a newline")
    return line
