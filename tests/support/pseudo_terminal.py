"""The client as a program: on a pseudo-terminal of its own, and in a pipe."""

import asyncio
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.service import Running, serving
from support.timeouts import BOUND

MAIN = "from samovar.cli import main; main()"
#: A session leader that opens a terminal has it as its own, so that Ctrl-C is a signal.
OWN = f"import os; os.close(os.open(os.ttyname(0), os.O_RDWR)); {MAIN}"
#: Written to the terminal when the line editor begins to read.
READS = "\x1b[?2004h"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def environ(directory: Path, **variables: str) -> dict[str, str]:
    return {
        "PATH": os.defpath,
        "HOME": str(directory),
        "XDG_STATE_HOME": str(directory / "state"),
        "TMPDIR": tempfile.gettempdir(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TERM": "xterm-256color",
        "PROMPT_TOOLKIT_NO_CPR": "1",  # this terminal answers no questions
        **variables,
    }


class Terminal:
    """A program on a terminal of its own. Output that was waited for is not found again."""

    def __init__(self, child: "subprocess.Popen[bytes]", master: int) -> None:
        self.child = child
        self.raw = ""
        self._master = master
        self._unread = ""

    def until(self, word: str, seconds: float = BOUND) -> str:
        """Read until the program shows a word; return the output before it."""
        end = time.monotonic() + seconds
        while word not in self._unread and self._read(end):
            continue
        before, found, self._unread = self._unread.partition(word)
        assert found, f"{word!r} is not in {before!r}"
        return ESCAPE.sub("", before)

    def _read(self, end: float) -> bool:
        if not select.select([self._master], [], [], max(end - time.monotonic(), 0.0))[0]:
            return False
        try:
            piece = os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # no process has the terminal open any more
            return False
        self.raw += piece
        self._unread += piece
        return bool(piece)

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def say(self, line: str) -> str:
        """Type a line; return the output until the next one may be typed."""
        self.press(f"{line}\r")
        return self.until(READS)

    def hang_up(self) -> None:
        """Close the terminal, like a window that is closed."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self._master)
        os.close(null)

    def exit_code(self) -> int:
        end = time.monotonic() + BOUND
        while self._read(end):
            continue
        return self.child.wait(BOUND)


@contextmanager
def terminal(
    directory: Path, *arguments: str, code: str | None = OWN, **variables: str
) -> Iterator[Terminal]:
    """Run code with arguments on a terminal; without code, Python with the arguments."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        with subprocess.Popen(
            [sys.executable, *([] if code is None else ["-c", code]), *arguments],
            env=environ(directory, **variables),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        ) as child:
            os.close(slave)
            slave = -1
            try:
                yield Terminal(child, master)
            finally:
                if child.poll() is None:
                    child.kill()
    finally:
        os.close(master)
        if slave >= 0:
            os.close(slave)


def piped(
    directory: Path, *arguments: str, code: str = MAIN, text: str = "", **variables: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environ(directory, **variables),
        input=text,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )


def serve(directory: Path, story: Callable[[Running], None], **sections: Any) -> None:
    """Run a story in a thread, with a service on the fake CLI in this one."""

    async def served() -> None:
        async with serving(directory, fake=True, **sections) as run:
            await asyncio.to_thread(story, run)

    asyncio.run(served())
