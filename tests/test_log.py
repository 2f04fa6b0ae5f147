"""Log lines: what they look like and what they must not hold."""

import io
import json
from collections.abc import Iterator

import pytest
import structlog

from samovard.telemetry.log import configure, identified


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


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
