"""`samovar chat`: a conversation, and the view that shows it.

A terminal has prompt_toolkit and Rich, from the extra `chat`; a pipe needs the standard library
only.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from samovar.chat.asking import Person, Read
from samovar.chat.commands import COMMANDS, Commands
from samovar.chat.conversation import Conversation, Decide, Verdict, View
from samovar.chat.parts import short
from samovar.chat.plain import Plain
from samovar.client import Client
from samovar.events import PermissionRequested
from samovar.reach import Place
from samovar.unasked import NOBODY
from samovar.words import clean_line

__all__ = ["Missing", "refused", "talk"]


class Missing(Exception):
    """Raised if the extra `chat` is not installed."""


def talk(
    client: Client,
    place: Place,
    session: str | None,
    profile: str,
    model: str,
    permission_policy: str,
    environ: Mapping[str, str],
) -> bool:
    """Hold a conversation on stdin and stdout until either ends.

    Return True if all went well: a reader of a pipe needs to be told. Raise `SamovarError` if the
    service refuses at the start, and `Missing`.
    """
    typed, shown = sys.stdin.isatty(), sys.stdout.isatty()
    rich = typed and shown and environ.get("TERM", "dumb") != "dumb"
    view, read = _terminal(environ) if rich else (Plain(sys.stdout, sys.stderr), _line(typed))
    conversation = Conversation(
        client,
        view,
        _stopping if typed else _not_stopping,
        Person(view, _typed(sys.stdout if rich else sys.stderr)).decide if typed else _deny(view),
        place=place,
        profile=profile,
        model=model,
        permission_policy=permission_policy,
    )
    conversation.begin(session)
    if not typed:
        return _follow(conversation)
    view.tell("/help lists what can be done; Ctrl-D or /quit ends the chat")
    _listen(Commands(conversation, view, place), view, read)
    return True


def _follow(conversation: Conversation) -> bool:
    """Send each line of stdin as a message. Return True if all turns were completed."""
    well = True
    for line in sys.stdin.buffer:
        text = line.decode(errors="replace").strip()
        if text:
            well = conversation.send(text) and well
    return well


def _listen(commands: Commands, view: View, read: Callable[[], str]) -> None:
    while True:
        try:
            if not commands.obey(read()):
                return
        except KeyboardInterrupt:
            view.tell("Ctrl-D or /quit ends the chat")
        except EOFError:
            return


def _terminal(environ: Mapping[str, str]) -> tuple[View, Callable[[], str]]:
    try:
        from rich.console import Console

        from samovar.chat.prompt import Prompt, history_in
        from samovar.chat.screen import Screen
    except ImportError as error:
        raise Missing(error.name) from error
    screen = Screen(Console(), time.monotonic)
    try:
        history = history_in(state_directory(environ))
    except OSError as error:
        screen.tell(f"no history is kept: {error.strerror}")
        history = history_in(None)
    return screen, Prompt(history, [name.split()[0] for name in COMMANDS]).read


def state_directory(environ: Mapping[str, str]) -> Path | None:
    """Return the directory for a user's state by the XDG base directory specification, or None."""
    given, home = environ.get("XDG_STATE_HOME", ""), environ.get("HOME", "")
    if given.startswith("/"):
        return Path(given, "samovar")
    return Path(home, ".local", "state", "samovar") if home.startswith("/") else None


def _line(typed: bool) -> Callable[[], str]:
    def read() -> str:
        if typed:
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return line

    return read


def _typed(out: TextIO) -> Read:
    def read(question: str, over: Callable[[], bool]) -> str | None:
        from samovar.chat.stopping import line_from, listening

        with listening(sys.stdin.fileno()):
            print(question, end="", file=out, flush=True)
            line = line_from(sys.stdin.fileno(), over)
        if line is None or not line.endswith("\n"):
            print(file=out, flush=True)
        # The end of input is not a permission.
        return "no" if line == "" else line

    return read


def _deny(view: View) -> Decide:
    def decide(request: PermissionRequested, over: Callable[[], bool]) -> Verdict:
        view.tell(f"{refused(request)}: {NOBODY}")
        return Verdict(allowed=False, why=NOBODY)

    return decide


def refused(request: PermissionRequested) -> str:
    """Return a line that says which request is denied."""
    return f"{clean_line(request.tool_name)} {short(request.input_json)} is denied"


@contextlib.contextmanager
def _stopping(*actions: Callable[[], None]) -> Iterator[None]:
    from samovar.chat.stopping import silent, stopping

    with stopping(*actions), silent(sys.stdin.fileno()):
        yield


@contextlib.contextmanager
def _not_stopping(*_: Callable[[], None]) -> Iterator[None]:
    # In a pipe Ctrl-C ends the program, which interrupts the turn.
    yield
