"""Asks a person whether a tool may be used.

Knows what a request holds and what an answer means. Where a line is typed is a function's
business: it gives None if there is nothing to answer any more.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any

from samovar.chat.conversation import Verdict, View
from samovar.events import PermissionRequested

QUESTION = "allow it? y, n, or n and why: "
#: So much of what a tool is given is shown at first: lines, and characters of each.
LINES = 20
WIDTH = 400

Read = Callable[[str, Callable[[], bool]], str | None]


class Person:
    """Somebody who types. `read` shows a question and gives the line that answers it."""

    def __init__(self, view: View, read: Read) -> None:
        self._view = view
        self._read = read

    def decide(self, request: PermissionRequested, over: Callable[[], bool]) -> Verdict | None:
        """Asks until there is an answer; None if the request was over before."""
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
    """Reads an answer; None if it is none. Only a plain yes is one."""
    word, _, rest = line.strip().partition(" ")
    word = word.rstrip(",.;:").lower()
    if word in ("y", "yes") and not rest.strip():
        return Verdict(allowed=True)
    if word in ("n", "no"):
        return Verdict(allowed=False, why=rest.strip())
    return None


def described(request: PermissionRequested, *, whole: bool) -> list[str]:
    """Says what a tool is to do, with nothing in it that a terminal would obey or hide."""
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
    """Gives the lines of a tool's input: a name and its value, or what is not JSON as it is."""
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
    """Writes what would not be seen, or would change how the rest is seen, as escapes."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
