"""A turn as plain text, for pipes and for simple terminals.

The answer goes to stdout and everything else to stderr, in lines that begin with `samovar:`.
"""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TextIO

from samovar import listing
from samovar.chat.conversation import Take
from samovar.chat.parts import Called
from samovar.events import (
    Event,
    Notice,
    Outcome,
    PermissionRequested,
    TextDelta,
    ToolResult,
    ToolUse,
    TurnFinished,
)
from samovar.turns import Session
from samovar.words import clean, clean_line

INTERRUPTING = "interrupting; Ctrl-C again leaves the turn"


class Plain:
    """Writer to two streams.

    A pipe gets the answer verbatim, a terminal without control characters.
    """

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._clean = out.isatty()

    def tell(self, line: str) -> None:
        """Write a line about the conversation."""
        print(f"samovar: {line}", file=self._err, flush=True)

    def list(self, sessions: Iterable[Session], current: str) -> None:
        """Write one line for each session."""
        for session in sessions:
            print(listing.line(session), file=self._out, flush=True)

    @contextmanager
    def turn(self) -> Iterator[Take]:
        """Write a turn as it comes."""
        turn = _Turn(self)
        try:
            yield turn.take
        finally:
            turn.end_line()

    def asking(self) -> AbstractContextManager[None]:
        """Do nothing: no drawing could cover the question."""
        return nullcontext()

    def interrupting(self) -> None:
        """Write how to stop at once."""
        self.tell(INTERRUPTING)

    def write(self, text: str) -> None:
        """Write a piece of the answer."""
        self._out.write(clean(text) if self._clean else text)
        self._out.flush()


class _Turn:
    """The state of a turn: where its last line ends, and which tools run."""

    def __init__(self, plain: Plain) -> None:
        self._plain = plain
        self._block: tuple[str, int] | None = None
        self._in_line = False
        self._running: dict[str, Called] = {}

    def take(self, event: Event) -> None:
        match event:
            case TextDelta() if not event.parent_tool_use_id:
                self._say(event)
            case ToolUse():
                self._running[event.tool_use_id] = Called(event)
            case ToolResult() if called := self._running.pop(event.tool_use_id, None):
                called.result = event
                self._tell(f"{called.line()}: {called.ending()}")
            case PermissionRequested():
                self.end_line()
            case Notice():
                self._tell(clean_line(event.message))
            case TurnFinished() if event.outcome is not Outcome.COMPLETED:
                self._tell(failure(event))

    def _say(self, event: TextDelta) -> None:
        block = (event.message_id, event.block_index)
        if block != self._block:
            self.end_line()
        self._block = block
        self._plain.write(event.text)
        self._in_line = not event.text.endswith("\n")

    def _tell(self, line: str) -> None:
        self.end_line()
        self._plain.tell(line)

    def end_line(self) -> None:
        if self._in_line:
            self._plain.write("\n")
        self._in_line = False


def failure(event: TurnFinished) -> str:
    """Return on one line why a turn was not completed."""
    outcome = event.outcome.name.lower().replace("_", " ")
    return clean_line("; ".join(event.errors)) or outcome
