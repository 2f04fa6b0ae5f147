"""The visible content of a turn so far, as a list of parts: texts and tool calls.

Knows the client's events, and nothing of how parts are drawn.
"""

import json
from dataclasses import dataclass
from typing import Any

from samovar.events import BlocksAbandoned, Event, TextDelta, ToolResult, ToolUse
from samovar.words import clean_line

#: In characters. A longer text is cut and its beginning is settled, so that what is redrawn stays
#: small.
LIMIT = 8192
_TELLING = ("command", "file_path", "path", "pattern", "query", "url", "description", "prompt")
_SHORT = 60


@dataclass(slots=True)
class Said:
    """A text, or a piece of a long one; `whole` once it will not grow."""

    block: tuple[str, int]
    text: str
    whole: bool = False


@dataclass(slots=True)
class Called:
    """A tool call, and its result once there is one."""

    use: ToolUse
    result: ToolResult | None = None

    @property
    def whole(self) -> bool:
        """True if the tool has returned."""
        return self.result is not None

    def line(self) -> str:
        """Return the call on one line: name, abbreviated input, outcome."""
        inset = "  " if self.use.parent_tool_use_id else ""
        return f"{inset}{clean_line(self.use.tool_name)} {short(self.use.input_json)}".rstrip()

    def ending(self) -> str:
        """Return the abbreviated outcome; empty while the tool runs."""
        if self.result is None:
            return ""
        if not self.result.is_error:
            return "ok"
        return f"error: {_cut(clean_line(self.result.text))}" if self.result.text else "error"


Part = Said | Called


class Parts:
    """The parts of a running turn, without those that were settled."""

    def __init__(self) -> None:
        self._open: list[Part] = []

    def take(self, event: Event) -> None:
        """Add the next event; an event that is not part of the answer changes nothing."""
        match event:
            case TextDelta() if not event.parent_tool_use_id:
                self._say(event)
            case ToolUse():
                self._open.append(Called(event))
            case ToolResult():
                for part in self._open:
                    if isinstance(part, Called) and part.use.tool_use_id == event.tool_use_id:
                        part.result = event
            case BlocksAbandoned() if not event.parent_tool_use_id:
                self._open = [part for part in self._open if not _void(part, event)]

    def _say(self, event: TextDelta) -> None:
        block, last = (event.message_id, event.block_index), self._open[-1:]
        if last and isinstance(last[0], Said) and last[0].block == block:
            text = last[0].text + event.text
            del self._open[-1]
        else:
            text = event.text
        while len(text) > LIMIT:
            head, rest = divide(text[:LIMIT], LIMIT // 2)
            text = rest + text[LIMIT:]
            self._open.append(Said(block, head, whole=True))
        self._open.append(Said(block, text))

    def open(self) -> tuple[Part, ...]:
        """Return the parts that may still change."""
        return tuple(self._open)

    def settle(self) -> list[Part]:
        """Remove and return the parts at the beginning that will not change.

        These are all up to the last whole part that has no running tool before it.
        """
        count = 0
        for number, part in enumerate(self._open, 1):
            if part.whole:
                count = number
            elif isinstance(part, Called):
                break
        settled, self._open = self._open[:count], self._open[count:]
        return settled

    def lead(self) -> list[Part]:
        """Remove and return the texts at the beginning; only for when they will not grow."""
        tools = (n for n, part in enumerate(self._open) if isinstance(part, Called))
        count = next(tools, len(self._open))
        led, self._open = self._open[:count], self._open[count:]
        return led

    def end(self) -> list[Part]:
        """Remove and return all parts that are left."""
        rest, self._open = self._open, []
        return rest


def _void(part: Part, event: BlocksAbandoned) -> bool:
    if not isinstance(part, Said):
        return False
    message, index = part.block
    return message == event.message_id and index >= event.from_block_index


def divide(text: str, least: int) -> tuple[str, str]:
    """Divide Markdown after at least `least` characters, between two blocks if possible.

    Otherwise it is divided between two lines, and an open fence is closed and reopened; or within a
    line that is too long.
    """
    fence, at = "", 0
    between: tuple[int, str] | None = None
    for line in text.splitlines(keepends=True):
        at += len(line)
        fence = _fence_behind(line, fence)
        if at < least or not line.endswith("\n"):
            continue
        if not fence and not line.strip():
            return text[:at], text[at:]
        between = between or (at, fence)
    if between is None:
        return text[:least], text[least:]
    at, fence = between
    if not fence:
        return text[:at], text[at:]
    return f"{text[:at]}{_run(fence)}\n", f"{fence}\n{text[at:]}"


def _fence_behind(line: str, fence: str) -> str:
    """Return the opening line of the fence that is open after this line; empty if none is."""
    mark = line.strip()
    if fence:
        return "" if mark == _run(mark) and mark.startswith(_run(fence)) else fence
    # It was cut: it is repeated in front of the rest, which must get shorter.
    return mark[:_SHORT] if mark.startswith(("```", "~~~")) else ""


def _run(mark: str) -> str:
    return mark[: len(mark) - len(mark.lstrip(mark[:1]))] if mark else ""


def short(input_json: str) -> str:
    """Return the most telling field of a tool's input, or all of them, cut short."""
    try:
        given: Any = json.loads(input_json)
    except ValueError:
        return _cut(clean_line(input_json))
    if not isinstance(given, dict):
        return _cut(clean_line(input_json))
    telling = [given[name] for name in _TELLING if isinstance(given.get(name), str)]
    if telling:
        return _cut(clean_line(telling[0]))
    return _cut(clean_line(json.dumps(given, ensure_ascii=False))) if given else ""


def _cut(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[: _SHORT - 1]}…"
