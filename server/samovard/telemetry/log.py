"""Log lines: JSON for machines, colour on a terminal, on a stream that never blocks or raises.

The stream replaces stderr as a whole. Its lines wait in a bounded queue for a thread that writes
them. Independent of what is logged. Callers must not log prompts, answers, credentials or paths of
a session.
"""

import io
import logging
import os
import select
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TextIO

import structlog

Line = MutableMapping[str, Any]

MOST_LINES = 10_000  # waiting to be written
MOST_BYTES = 4 * 1024 * 1024
CLOSE_TIMEOUT = 1.0  # seconds at exit for the remaining lines
_ALWAYS = ("time", "level", "severity", "event", "message")

_log = structlog.get_logger("samovard.log")


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
        """The encoding of text."""
        return "utf-8"

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return True if the lines are written to a terminal."""
        return self._terminal

    def write(self, text: str, /) -> int:
        """Queue a text, or drop it if the queue is full. Return its length in both cases."""
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
        """Write what is queued, waiting at most `within` seconds."""
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
            except Exception:  # of any kind; the next line is tried again
                with self._lock:
                    self._dropped += 1

    def _tell(self) -> None:
        """Report the dropped lines once half of the queue is free."""
        with self._lock:
            lost = self._dropped - self._told
            if not lost or self._lines > MOST_LINES / 2 or self._bytes > MOST_BYTES / 2:
                return
            self._told += lost
        self._on_flow(lost)


class Descriptor:
    """Write whole pieces to a file descriptor, which other programs may share."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._torn = False

    def __call__(self, data: bytes) -> None:
        """Write all of `data`. Raise OSError if that fails."""
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
    """Return a function that writes to a stream's descriptor, or to the stream if it has none."""
    try:
        return Descriptor(stream.fileno())
    except (OSError, ValueError):

        def write(data: bytes) -> None:
            stream.write(data.decode())
            stream.flush()

        return write


class Output:
    """The end of the log's pipeline. Unlike structlog's own output it takes no lock.

    A finalizer that logs while the garbage collector runs in the middle of another line would
    wait for that lock forever.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def msg(self, message: str) -> None:
        """Write a line."""
        self._stream.write(message + "\n")
        self._stream.flush()

    debug = info = warning = error = critical = msg


@contextmanager
def unblocked() -> Iterator[Lines]:
    """Replace stderr by a stream that never blocks or raises, in any thread.

    On exit, write what is queued, waiting at most a second.
    """
    stderr = sys.stderr

    def flows(count: int) -> None:
        _log.warning("log.dropped", count=count)

    lines = Lines(writer(stderr), flows, terminal=stderr.isatty())
    sys.stderr = lines
    try:
        yield lines
    finally:
        sys.stderr = stderr
        lines.finish()


def dropped() -> int:
    """Return how many lines on stderr were dropped."""
    return sys.stderr.dropped if isinstance(sys.stderr, Lines) else 0


def configure(format: str, level: str, stream: TextIO, *, for_good: bool = False) -> None:
    """Set up logging.

    `format` is `json`, `console` or `auto`, which means `console` on a terminal, else `json`. With
    `for_good` it cannot be set up differently later; a line below the level then costs a tenth.
    """
    console = format == "console" or (format == "auto" and stream.isatty())
    render: list[structlog.typing.Processor] = (
        [
            _for_people,
            _rendered(
                structlog.dev.ConsoleRenderer(
                    colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
                )
            ),
        ]
        if console
        else [_for_machines, _rendered(structlog.processors.JSONRenderer())]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            # As text: a structured traceback would hold the values of every frame.
            structlog.processors.format_exc_info,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_: Output(stream),
        cache_logger_on_first_use=for_good,
    )


@contextmanager
def identified(server_id: str) -> Iterator[None]:
    """Add `server_id` to every line, from any thread or task."""

    def add(_: object, __: str, line: Line) -> Line:
        return {**line, "server_id": server_id}

    processors = structlog.get_config()["processors"]
    processors.insert(0, add)
    try:
        yield
    finally:
        with suppress(ValueError):  # logging was set up again
            processors.remove(add)


def _rendered(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Return a renderer that drops a line's own fields if one of them cannot be rendered."""

    def rendered(logger: object, method: str, line: Line) -> structlog.typing.ProcessorReturnValue:
        try:
            return render(logger, method, dict(line))
        except Exception as error:
            plain = {name: line[name] for name in _ALWAYS if name in line}
            return render(logger, method, {**plain, "unrendered": type(error).__name__})

    return rendered


def _for_people(_: object, __: str, line: Line) -> Line:
    """Drop `server_id`, which a reader at a terminal knows."""
    line.pop("server_id", None)
    return line


def _for_machines(_: object, __: str, line: Line) -> Line:
    """Rename the common fields as log collectors expect them, and put them first."""
    first = {"time": line.pop("time"), "severity": line.pop("level").upper()}
    return {**first, "message": line.pop("event"), **line}
