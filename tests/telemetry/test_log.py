"""Log lines: what they look like and what they must not hold."""

import errno
import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import structlog
from support.timeouts import BOUND

from samovard.telemetry.log import (
    MOST_BYTES,
    MOST_LINES,
    Lines,
    configure,
    dropped,
    identified,
    unblocked,
    writer,
)


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end


def _wait(event: threading.Event) -> None:
    event.wait()


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("format", "stream"),
    [("json", io.StringIO()), ("console", io.StringIO()), ("auto", Terminal())],
)
def test_a_logged_exception_hides_the_values_of_its_frames(
    format: str, stream: io.StringIO
) -> None:
    """The traceback is there; what variables held, a prompt or a key, is not."""
    configure(format, "info", stream)
    prompt = "ask" + "-me"
    try:
        raise ValueError(len(prompt))
    except ValueError:
        structlog.get_logger().exception("defect")
    assert "ValueError: 6" in stream.getvalue()
    assert "ask-me" not in stream.getvalue()


def test_a_pipe_gets_one_json_object_a_line() -> None:
    """Where nobody looks, lines are for machines."""
    stream = io.StringIO()
    configure("auto", "info", stream)
    structlog.get_logger().info("turn.begun", turn_id="t")
    line = json.loads(stream.getvalue())
    assert list(line) == ["time", "severity", "message", "turn_id"]
    assert (line["message"], line["severity"], line["turn_id"]) == ("turn.begun", "INFO", "t")
    assert line["time"].endswith("Z")


def test_lines_below_the_level_are_left_out() -> None:
    """`warning` leaves out what is merely told."""
    stream = io.StringIO()
    configure("json", "warning", stream)
    structlog.get_logger().info("turn.begun")
    assert stream.getvalue() == ""


def test_every_line_says_which_server_wrote_it() -> None:
    """While the service runs, and only then."""
    stream = io.StringIO()
    configure("json", "info", stream)
    logger = structlog.get_logger()
    with identified("one"):
        logger.info("during")
    logger.info("after")
    during, after = (json.loads(line) for line in stream.getvalue().splitlines())
    assert during["server_id"] == "one"
    assert "server_id" not in after


def test_a_terminal_does_not_show_which_server_it_is() -> None:
    """Whoever looks at it knows."""
    stream = io.StringIO()
    configure("console", "info", stream)
    with identified("a-server"):
        structlog.get_logger().info("during")
    assert "during" in stream.getvalue()
    assert "a-server" not in stream.getvalue()


def test_a_line_that_cannot_be_written_is_dropped_and_the_next_is_tried() -> None:
    """What fails is counted, and told once lines flow again."""
    fail, written = [True], list[bytes]()
    told: list[int] = []

    def write(data: bytes) -> None:
        if fail[0]:
            raise OSError(errno.ENOSPC, "full")
        written.append(data)

    lines = Lines(write, told.append)
    for number in range(3):
        lines.write(f"{number}\n")
    until(lambda: lines.dropped == 3)
    fail.clear()
    fail.append(False)
    lines.write("on\n")
    lines.write("and on\n")
    lines.finish()
    assert (written, told) == ([b"on\n", b"and on\n"], [3])


def test_a_closed_stream_drops_what_is_written() -> None:
    """No error of the writer, whatever its kind, leaves the stream."""
    stream = io.StringIO()
    stream.close()
    lines = Lines(writer(stream))
    lines.write("x\n")
    lines.finish()
    assert lines.dropped == 1


@pytest.mark.parametrize(("size", "fit"), [(1, MOST_LINES), (MOST_BYTES // 4, 4)])
def test_a_full_queue_drops_lines_and_does_not_wait(size: int, fit: int) -> None:
    """The queue is bounded by lines and by bytes; what it has no room for is counted."""
    free, begun, written = threading.Event(), threading.Event(), []

    def write(data: bytes) -> None:
        begun.set()
        assert free.wait(60)
        written.append(data)

    lines = Lines(write)
    lines.write("first")
    assert begun.wait(60)
    for _ in range(fit + 3):
        lines.write("x" * size)
    assert lines.dropped == 3
    free.set()
    lines.finish(60)
    assert len(written) == 1 + fit


def test_a_writer_that_never_returns_does_not_hold_up_the_end() -> None:
    """The thread is not waited for beyond the time that it is given."""
    free = threading.Event()
    lines = Lines(lambda _: _wait(free))
    lines.write("x")
    begin = time.monotonic()
    lines.finish(0.05)
    assert time.monotonic() - begin < 30
    free.set()


def test_text_of_no_encoding_is_written_escaped() -> None:
    """A lone surrogate, as of a file's name, does not raise."""
    written: list[bytes] = []
    lines = Lines(written.append)
    lines.write("\udcff\n")
    lines.finish()
    assert written == [b"\\udcff\n"]


def test_a_pipe_that_is_full_for_a_moment_gets_every_line() -> None:
    """A descriptor that another owner made non-blocking is waited for, by the thread alone."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(reading, "rb") as read, open(writing, "w") as stream:
        lines = Lines(writer(stream))
        for number in range(200):
            lines.write(f"{number:01000}\n")
        heard = [read.readline() for _ in range(200)]
        lines.finish()
    assert [int(line) for line in heard] == list(range(200))
    assert lines.dropped == 0


def test_what_was_lost_is_a_warning_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the service runs, stderr tells how many of its lines were dropped."""
    full = [True]

    class Disk(io.StringIO):
        def write(self, text: str) -> int:
            if full[0]:
                raise OSError(errno.ENOSPC, "full")
            return super().write(text)

    disk = Disk()
    monkeypatch.setattr(sys, "stderr", disk)
    with unblocked() as lines:
        configure("json", "info", sys.stderr)
        structlog.get_logger().info("lost")
        until(lambda: dropped() == 1)
        full[0] = False
        print("a word of Python's own", file=sys.stderr)
        until(lambda: "log.dropped" in disk.getvalue())
        assert dropped() == lines.dropped == 1
    assert sys.stderr is disk
    word, line = disk.getvalue().splitlines()
    assert word == "a word of Python's own"
    told = json.loads(line)
    assert (told["message"], told["severity"], told["count"]) == ("log.dropped", "WARNING", 1)


def test_python_s_own_loggers_end_up_in_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """asyncio's, gRPC's and warnings go to stderr as it is when they are told."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # pytest's
    with unblocked():
        logging.getLogger("asyncio").error("never retrieved")
        assert logging.lastResort is not None
        assert isinstance(logging.lastResort.stream, Lines)  # type: ignore[attr-defined]
    assert stream.getvalue() == "never retrieved\n"


class Unshowable:
    """Raises whatever shows it."""

    def __repr__(self) -> str:
        raise ValueError("no")


@pytest.mark.parametrize("format", ["json", "console"])
def test_a_field_that_cannot_be_shown_costs_the_fields_and_not_the_work(format: str) -> None:
    """The line is there, and says that it is incomplete; nothing is raised."""
    stream = io.StringIO()
    configure(format, "info", stream)
    structlog.get_logger().warning("start.failed", error=Unshowable())
    assert "start.failed" in stream.getvalue()
    assert "ValueError" in stream.getvalue()
