"""Ask a person whether a tool may be used.

Knows what a request contains and what an answer means. The function that reads a line returns None
once there is nothing left to answer.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from samovar.chat.conversation import Verdict, View
from samovar.events import PermissionRequested

QUESTION = "allow it? y, n, or n and why: "
#: How much of a tool's input is shown at first: lines, and characters of each.
LINES = 20
WIDTH = 400

Read = Callable[[str, Callable[[], bool]], str | None]


class Person:
    """A person at a terminal. `read` shows a question and returns the line that answers it."""

    def __init__(self, view: View, read: Read) -> None:
        self._view = view
        self._read = read

    def decide(self, request: PermissionRequested, over: Callable[[], bool]) -> Verdict | None:
        """Ask until there is an answer. Return None if the request was resolved before."""
        with self._view.asking():
            self._show(request, whole=False)
            while (line := self._read(QUESTION, over)) is not None:
                if (verdict := verdict_of(line)) is not None:
                    return verdict
                self._show(request, whole=line.strip().lower() == "s")
        return None

    def _show(self, request: PermissionRequested, *, whole: bool) -> None:
        for line in described(request, whole=whole):
            self._view.tell(line)


def verdict_of(line: str) -> Verdict | None:
    """Return the verdict in an answer, None if it has none. Only a plain yes allows."""
    word, _, rest = line.strip().partition(" ")
    word = word.rstrip(",.;:").lower()
    if word in ("y", "yes") and not rest.strip():
        return Verdict(allowed=True)
    if word in ("n", "no"):
        return Verdict(allowed=False, why=rest.strip())
    return None


def described(request: PermissionRequested, *, whole: bool) -> list[str]:
    """Return what a tool would do, without text that a terminal would obey or hide."""
    who = "a sub-agent" if request.parent_tool_use_id else "the agent"
    told = [f"{who} asks to use {_visible(request.tool_name)}"]
    told += [_visible(text) for text in (request.title, request.reason) if text]
    given = list(_given(request.input_json))
    if not whole:
        cut = sum(len(line) > WIDTH for line in given[:LINES]) + max(len(given) - LINES, 0)
        given = [line[:WIDTH] for line in given[:LINES]]
        if cut:
            given.append(f"({cut} lines are longer or not shown: s shows all)")
    if request.input_truncated_bytes:
        given.append(f"({request.input_truncated_bytes} bytes more, which are not known here)")
    return told + [f"  {line}" for line in given]


def _given(input_json: str) -> Iterator[str]:
    """Yield the lines of a tool's input: a name and its value, or the text as it is if it is not
    JSON.
    """
    try:
        given: Any = json.loads(input_json)
    except ValueError:
        given = input_json
    if not isinstance(given, dict):
        given = {"input": given}
    for name, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        first, *others = text.splitlines() or [""]
        yield f"{_visible(name)}: {_visible(first)}"
        yield from (f"  {_visible(line)}" for line in others)


def _visible(text: str) -> str:
    """Return a text in which invisible characters, and those that change how others look, are
    escaped.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
