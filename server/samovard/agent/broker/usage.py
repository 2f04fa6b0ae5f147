"""The tokens of an answer, read from its stream as it passes.

Knows the API's events. Keeps one line at most, and never a whole body.
"""

from dataclasses import asdict, dataclass

import msgspec

MAX_LINE = 64 << 10


class _Usage(msgspec.Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class _Message(msgspec.Struct):
    usage: _Usage | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None
    message: _Message | None = None


_DECODER = msgspec.json.Decoder(_Answer)


@dataclass(slots=True)
class Tokens:
    """Tokens as the API counts them; `input` is without what the cache had or took."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    def counted(self) -> dict[str, int]:
        """Return the counts by kind, without those that are zero."""
        return {kind: count for kind, count in asdict(self).items() if count}


class UsageReader:
    """Reader of an answer's pieces; `tokens` is what they have told so far."""

    def __init__(self) -> None:
        self.tokens = Tokens()
        self._line = b""
        self._skips = False  # until the end of a line that is too long

    def feed(self, piece: bytes) -> None:
        """Take the next piece of the answer."""
        *whole, rest = (self._line + piece).split(b"\n")
        if whole and self._skips:
            self._skips = False
            whole.pop(0)
        for line in whole:
            self._take(line)
        if len(rest) > MAX_LINE:
            self._skips, rest = True, b""
        self._line = b"" if self._skips else rest

    def end(self) -> None:
        """Take the last line of the answer, which has no end when it is not a stream."""
        if not self._skips:
            self._take(self._line)
        self._line = b""

    def _take(self, line: bytes) -> None:
        # Most lines are pieces of text: they are not decoded.
        if b'"usage"' not in line or len(line) > MAX_LINE:
            return
        try:
            answer = _DECODER.decode(line.removeprefix(b"data:"))
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        for usage in (answer.message and answer.message.usage, answer.usage):
            if usage:
                self._add(usage)

    def _add(self, usage: _Usage) -> None:
        # Each count is a total so far, repeated by later events or left out of them.
        tokens = self.tokens
        tokens.input = max(tokens.input, usage.input_tokens or 0)
        tokens.output = max(tokens.output, usage.output_tokens or 0)
        tokens.cache_read = max(tokens.cache_read, usage.cache_read_input_tokens or 0)
        tokens.cache_write = max(tokens.cache_write, usage.cache_creation_input_tokens or 0)
