"""Ctrl-C while a turn runs, and the suppression of typed input meanwhile.

Knows signals, threads and terminal modes. Knows nothing of turns.
"""

import contextlib
import os
import select
import signal
import termios
import threading
from collections import deque
from collections.abc import Callable, Iterator
from queue import SimpleQueue

PATIENCE = 5.0
LOOK_AGAIN = 0.1


@contextlib.contextmanager
def stopping(*actions: Callable[[], None]) -> Iterator[None]:
    """Call the first action at the first Ctrl-C within the block, the second at the second.

    Each action has a thread: it may wait, and the next one need not wait for it. Nothing is raised
    in the main thread, which may be drawing. Only for the main thread.
    """
    # The `put` of this class may be interrupted by itself; that of `Queue`, or the start of a
    # thread, may not.
    presses: SimpleQueue[bool] = SimpleQueue()
    left = deque(actions)

    def act() -> None:
        if presses.get():
            left.popleft()()

    threads = [threading.Thread(target=act, daemon=True) for _ in actions]
    before = signal.signal(signal.SIGINT, lambda *_: presses.put(True))
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        for _ in threads:
            presses.put(False)
        for thread in threads:
            thread.join(PATIENCE)
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def silent(descriptor: int) -> Iterator[None]:
    """Keep typed input from showing within the block: it would land in what is drawn.

    The input stays for the next reader of the terminal.
    """
    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, changed)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


@contextlib.contextmanager
def listening(descriptor: int) -> Iterator[None]:
    """Show typed input within the block, which is inside `silent`.

    Input from before is discarded: it cannot answer a later question.
    """
    before = termios.tcgetattr(descriptor)
    changed = termios.tcgetattr(descriptor)
    changed[3] |= termios.ECHO | termios.ICANON
    termios.tcsetattr(descriptor, termios.TCSAFLUSH, changed)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSANOW, before)


def line_from(descriptor: int, over: Callable[[], bool]) -> str | None:
    """Return the typed line, empty at the end of the input; None if `over` returns True first."""
    typed = b""
    while not typed.endswith(b"\n"):
        if over():
            return None
        if select.select([descriptor], [], [], LOOK_AGAIN)[0]:
            piece = os.read(descriptor, 4096)
            if not piece:
                break
            typed += piece
    return typed.decode(errors="replace")
