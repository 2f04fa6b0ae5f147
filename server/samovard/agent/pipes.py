"""The three pipes of a child, on the event loop, without blocking.

Moves bytes; knows nothing of what they mean. Anything with three pipes may be the child.
"""

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Callable
from subprocess import Popen

from samovard.telemetry.redaction import without_secrets

READ_SIZE = 256 * 1024
STDERR_KEPT = 4096


class Pipes:
    """Reader of a child's output and writer of its input.

    `on_data` is called with the bytes of each read of stdout; `on_stall` when the child has taken
    no input for `stall` seconds while some is waiting.
    """

    def __init__(
        self,
        child: Popen[bytes],
        on_data: Callable[[bytes], None],
        on_stall: Callable[[], None],
        stall: float,
    ) -> None:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        self._files = child.stdin, child.stdout, child.stderr
        self._stdin, self._stdout, self._stderr = (file.fileno() for file in self._files)
        self._on_data = on_data
        self._on_stall = on_stall
        self._stall = stall
        self._loop = asyncio.get_running_loop()
        self._unwritten: deque[memoryview] = deque()
        self._taken: deque[tuple[memoryview, Callable[[], None]]] = deque()
        self._stalled: asyncio.TimerHandle | None = None
        self._input_open = True
        self._paused = False
        self._closed = False
        self._tail = b""
        for descriptor in (self._stdin, self._stdout, self._stderr):
            os.set_blocking(descriptor, False)
        self._loop.add_reader(self._stdout, self._read)
        self._loop.add_reader(self._stderr, self._read_stderr)

    @property
    def stderr(self) -> str:
        """The last part of the child's stderr: untrusted, printable, without credentials."""
        text = without_secrets(self._tail.decode("utf-8", "replace"))
        return "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in text)

    def write(self, data: bytes, taken: Callable[[], None] | None = None) -> bool:
        """Write bytes after all earlier ones, now or as the child takes them.

        `taken` is called in the same step in which the first byte is taken. Return True if the
        child can still take input.
        """
        if not self._input_open:
            return False
        view = memoryview(data)
        self._unwritten.append(view)
        if taken is not None:
            self._taken.append((view, taken))
        if len(self._unwritten) == 1:
            self._write()
        return self._input_open

    def _write(self) -> None:
        try:
            while self._unwritten:
                view = self._unwritten[0]
                count = os.write(self._stdin, view)
                self._progress()
                self._tell_taken(view)
                self._unwritten.popleft()
                if count < len(view):
                    self._unwritten.appendleft(view[count:])
        except BlockingIOError:
            self._loop.add_writer(self._stdin, self._write)
            self._watch_stall()
        except BrokenPipeError:
            self.close_input()
        else:
            self._loop.remove_writer(self._stdin)

    def _tell_taken(self, view: memoryview) -> None:
        if self._taken and self._taken[0][0] is view:
            self._taken.popleft()[1]()

    def _progress(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _watch_stall(self) -> None:
        if self._stalled is None:
            self._stalled = self._loop.call_later(self._stall, self._on_stall)

    def _read(self) -> None:
        data = self._read_once()
        if data:
            self._on_data(data)

    def _read_once(self) -> bytes:
        try:
            data = os.read(self._stdout, READ_SIZE)
        except BlockingIOError:
            return b""
        if not data:
            self._loop.remove_reader(self._stdout)
        return data

    def _read_stderr(self) -> None:
        try:
            data = os.read(self._stderr, READ_SIZE)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._stderr)
        self._tail = (self._tail + data)[-STDERR_KEPT:]

    def pause(self) -> None:
        """Stop reading stdout: the child blocks once its pipe is full."""
        if not self._closed and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._stdout)

    def resume(self) -> None:
        """Read stdout again."""
        if not self._closed and self._paused:
            self._paused = False
            self._loop.add_reader(self._stdout, self._read)

    def drain(self) -> None:
        """Read what a dead child left behind, without waiting: a grandchild may keep writing."""
        if self._closed:
            return
        # An unprivileged process can make a pipe hold at most 1 MiB.
        for _ in range(2 * (1 << 20) // READ_SIZE):
            data = self._read_once()
            if not data:
                break
            self._on_data(data)
        self._read_stderr()

    def close_input(self) -> None:
        """Close stdin; what was not written yet is lost."""
        if self._input_open:
            self._input_open = False
            self._progress()
            self._unwritten.clear()
            self._loop.remove_writer(self._stdin)
            with contextlib.suppress(BrokenPipeError):  # unread output is lost anyway
                self._files[0].close()

    def close(self) -> None:
        """Close all three pipes. Idempotent."""
        self.close_input()
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._stdout)
            self._loop.remove_reader(self._stderr)
            for file in self._files[1:]:
                file.close()
