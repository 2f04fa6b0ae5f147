"""One turn of `samovar send`: its text as it comes, or its events as lines of JSON.

Knows the client's events. Permission requests are denied, because no person is there to answer.
"""

import contextlib
import enum
import json
import logging
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from samovar import unasked
from samovar.chat import refused
from samovar.chat.plain import failure
from samovar.client import Client, Turn
from samovar.events import Notice, Outcome, PermissionRequested, TextDelta, TurnFinished
from samovar.words import clean, clean_line

Deny = Callable[[PermissionRequested], None]


def show(client: Client, turn: Turn, *, as_json: bool) -> bool:
    """Print a turn to its end. Return True if it was completed; raise `SamovarError`."""

    def deny(event: PermissionRequested) -> None:
        print(f"samovar: {refused(event)}: {unasked.NOBODY}", file=sys.stderr)
        unasked.deny(client, turn.session, event)

    with _breaks_told():
        return (_print_json if as_json else _print_text)(turn, deny)


class _Breaks(logging.Handler):
    """Writer of a line on stderr for each stream that breaks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, in the command line's words."""
        print("samovar: the stream broke: joining the turn again", file=sys.stderr)


@contextlib.contextmanager
def _breaks_told() -> Iterator[None]:
    log, handler = logging.getLogger("samovar"), _Breaks()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _print_text(turn: Turn, deny: Deny) -> bool:
    ok, column = True, 0
    # A pipe gets the answer as it is; a terminal would obey control characters in it.
    shown = clean if sys.stdout.isatty() else str
    for event in turn:
        match event:
            case TextDelta(text=text) if not event.parent_tool_use_id:
                sys.stdout.write(shown(text))
                sys.stdout.flush()
                column = 0 if text.endswith("\n") else 1
            case PermissionRequested():
                deny(event)
            case Notice():
                print(f"samovar: {clean_line(event.message)}", file=sys.stderr)
            case TurnFinished():
                ok = event.outcome is Outcome.COMPLETED
                if column:
                    print()
                if not ok:
                    print(f"samovar: {failure(event)}", file=sys.stderr)
    return ok


def _print_json(turn: Turn, deny: Deny) -> bool:
    ok = True
    for event in turn:
        if isinstance(event, PermissionRequested):
            deny(event)
        print(json.dumps({"event": type(event).__name__} | plain(event)), flush=True)
        if isinstance(event, TurnFinished):
            ok = event.outcome is Outcome.COMPLETED
    return ok


def plain(value: Any) -> dict[str, Any]:
    """Return one of the client's values as JSON has it."""
    plain = asdict(value)
    plain.pop("raw_json", None)
    for name, inner in plain.items():
        if isinstance(inner, enum.Enum):
            plain[name] = inner.name.lower()
    return plain
