"""Log lines: JSON for machines, colour on a terminal, on a stream that never blocks or raises.

The stream is that of all else on stderr, too. Its lines wait in a bounded queue for a thread that
writes them. Knows nothing of what is logged. Lines never hold prompts, answers, credentials or
paths of a session: callers see to that.
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

MOST_LINES = 10_000  # that wait to be written
MOST_BYTES = 4 * 1024 * 1024
CLOSE_TIMEOUT = 1.0  # seconds for the lines that are left at exit
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


class Output:
    """The end of the log's pipeline. Unlike structlog's own it takes no lock.

    A finalizer that logs while the garbage collector runs in the middle of another line would
    wait for that lock for ever.
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
    """Make stderr a stream that never blocks or raises: whatever prints to it, from any thread.

    Leaving writes what is queued, but waits for at most a second.
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
    """Sets up logging: `format` is `auto`, `json` or `console`; `auto` asks the stream.

    What is set up `for_good` cannot be set up otherwise later: a line that is left out then
    costs a tenth.
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
            # As text: a structured one would hold the values of every frame.
            structlog.processors.format_exc_info,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_: Output(stream),
        cache_logger_on_first_use=for_good,
    )


@contextmanager
def identified(server_id: str) -> Iterator[None]:
    """Has every line say which server wrote it, whatever thread or task it comes from."""

    def add(_: object, __: str, line: Line) -> Line:
        return {**line, "server_id": server_id}

    processors = structlog.get_config()["processors"]
    processors.insert(0, add)
    try:
        yield
    finally:
        with suppress(ValueError):  # it was set up anew
            processors.remove(add)


def _rendered(render: structlog.typing.Processor) -> structlog.typing.Processor:
    """Return a renderer that leaves out the fields of a line of which one cannot be shown."""

    def rendered(logger: object, method: str, line: Line) -> structlog.typing.ProcessorReturnValue:
        try:
            return render(logger, method, dict(line))
        except Exception as error:
            plain = {name: line[name] for name in _ALWAYS if name in line}
            return render(logger, method, {**plain, "unrendered": type(error).__name__})

    return rendered


def _for_people(_: object, __: str, line: Line) -> Line:
    """Leaves out which server it is: whoever looks at a terminal knows."""
    line.pop("server_id", None)
    return line


def _for_machines(_: object, __: str, line: Line) -> Line:
    """Names what every line has as collectors of logs do, and puts it first."""
    first = {"time": line.pop("time"), "severity": line.pop("level").upper()}
    return {**first, "message": line.pop("event"), **line}
