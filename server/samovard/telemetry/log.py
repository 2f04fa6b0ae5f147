"""Log lines: JSON for machines, colour on a terminal.

Knows nothing of what is logged. Lines never hold prompts, answers, credentials or paths
of a session; whoever calls sees to that.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import structlog

from samovard.telemetry.lines import Lines, writer

Line = MutableMapping[str, Any]

_ALWAYS = ("time", "level", "severity", "event", "message")

_log = structlog.get_logger("samovard.log")


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
