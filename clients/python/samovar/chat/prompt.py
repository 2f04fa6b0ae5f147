"""The input of a person: a line editor with a history.

Knows prompt_toolkit, which the extra `chat` installs.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

#: In bytes. A larger history is cut to half of this.
LARGEST_HISTORY = 1 << 20


class Prompt:
    """Reader of messages. `commands` are completed at the beginning of a line."""

    def __init__(self, history: History, commands: Iterable[str]) -> None:
        self._session: PromptSession[str] = PromptSession(
            FormattedText([("bold", "> ")]),
            history=history,
            completer=_Commands(commands),
            complete_while_typing=False,
            key_bindings=_keys(),
        )

    def read(self) -> str:
        """Return the typed line.

        Raise `EOFError` for Ctrl-D, and `KeyboardInterrupt` for Ctrl-C on an empty line.
        """
        return self._session.prompt()


def history_in(directory: Path | None) -> History:
    """Return the history in a directory, which is made; without a directory, one in memory.

    Only the user can read it. Raise `OSError`.
    """
    if directory is None:
        return InMemoryHistory()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "history"
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+b") as file:
        os.fchmod(file.fileno(), 0o600)
        if os.fstat(file.fileno()).st_size > LARGEST_HISTORY:
            file.seek(-LARGEST_HISTORY // 2, os.SEEK_END)
            # An entry begins with a blank line and a time.
            _, _, kept = file.read().partition(b"\n\n# ")
            file.seek(0)
            file.write(b"\n# " + kept)
            file.truncate()
    return FileHistory(str(path))


class _Commands(Completer):
    def __init__(self, words: Iterable[str]) -> None:
        self._words = tuple(words)

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterable[Completion]:
        begun = document.text_before_cursor
        if not begun.startswith("/"):
            return
        for word in self._words:
            if word.startswith(begun):
                yield Completion(word, -len(begun))


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("c-c")
    def _clear(event: KeyPressEvent) -> None:
        if event.current_buffer.text:
            event.current_buffer.reset()
        else:
            event.app.exit(exception=KeyboardInterrupt)

    @keys.add("escape", "enter")
    def _new_line(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return keys
