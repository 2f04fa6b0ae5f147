"""A text stream that never blocks or raises, for the log and everything else on stderr.

Lines wait in a bounded queue for a thread that writes them. Knows nothing of what a line says.
"""

import io
import os
import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TextIO

MOST_LINES = 10_000  # that wait to be written
MOST_BYTES = 4 * 1024 * 1024
CLOSE_TIMEOUT = 1.0  # seconds for the lines that are left at exit


class Lines(io.TextIOBase):
    """A stream whose `write` queues text. Text that does not fit, or fails, is dropped and counted.

    `write` is called by one thread only; it may block and raise. `on_flow` is called by that
    thread with the number of dropped pieces once text can be written again.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        on_flow: Callable[[int], None] = lambda _: None,
        *,
        terminal: bool = False,
    ) -> None:
        super().__init__()
        self._write = write
        self._on_flow = on_flow
        self._terminal = terminal
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        # Reentrant: the garbage collector may run a finalizer that logs while it is held.
        self._lock = threading.RLock()
        self._lines = self._bytes = 0
        self._dropped = self._told = 0
        # A daemon: a write that never returns must not keep the process from exiting.
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """The number of pieces that were never written."""
        return self._dropped

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        """What text is encoded as."""
        return "utf-8"

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """True if the lines end up on a terminal."""
        return self._terminal

    def write(self, text: str, /) -> int:
        """Queue a text, or drop it if the queue is full. Return its length in any case."""
        data = text.encode(errors="backslashreplace")
        with self._lock:
            fits = self._lines < MOST_LINES and self._bytes + len(data) <= MOST_BYTES
            if fits:
                self._lines += 1
                self._bytes += len(data)
            else:
                self._dropped += 1
        if fits:
            self._queue.put(data)
        return len(text)

    def finish(self, within: float = CLOSE_TIMEOUT) -> None:
        """Write what is queued, but wait no longer than `within` seconds."""
        self._queue.put(None)
        self._thread.join(within)

    def _run(self) -> None:
        while (data := self._queue.get()) is not None:
            with self._lock:
                self._lines -= 1
                self._bytes -= len(data)
            try:
                self._write(data)
                self._tell()
            except Exception:  # whatever it is, the next line is tried again
                with self._lock:
                    self._dropped += 1

    def _tell(self) -> None:
        """Report what was dropped, once half of the queue is free."""
        with self._lock:
            lost = self._dropped - self._told
            if not lost or self._lines > MOST_LINES / 2 or self._bytes > MOST_BYTES / 2:
                return
            self._told += lost
        self._on_flow(lost)


class Descriptor:
    """Writes whole pieces to a file descriptor; it belongs to somebody else."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def __call__(self, data: bytes) -> None:
        """Write all of it. Raise OSError if that fails."""
        left = b"\n" + data if self._torn else data
        while left:
            try:
                written = os.write(self._descriptor, left)
            except BlockingIOError:  # another owner of the file made it non-blocking
                waiting = select.poll()
                waiting.register(self._descriptor, select.POLLOUT)
                waiting.poll()
                continue
            # A piece that fails half way must not spoil the line behind it.
            self._torn = written < len(left)
            left = left[written:]


def writer(stream: TextIO) -> Callable[[bytes], None]:
    """Return what writes to a stream's descriptor, or to the stream itself if it has none."""
    try:
        return Descriptor(stream.fileno())
    except (OSError, ValueError):

        def write(data: bytes) -> None:
            stream.write(data.decode())
            stream.flush()

        return write
