"""Variables of the OpenTelemetry SDK that cannot be used: a sentence, never a traceback."""

import inspect
import sys
from pathlib import Path

import pytest
from opentelemetry import environment_variables as api
from opentelemetry.sdk import environment_variables as sdk
from support.program import SAMOVARD, config_of, run

PROGRAM = str(Path(__file__).parents[1] / "support" / "telemetry_start.py")
NOBODY = "http://127.0.0.1:9"  # the discard port, on which nobody listens
SECURE = "https://127.0.0.1:9"  # where certificates count
COMPRESSION = "OTEL_EXPORTER_OTLP_COMPRESSION"
#: Every variable that the API, the SDK and its exporters know by name.
KNOWN = sorted(
    value
    for _, value in (*inspect.getmembers(api), *inspect.getmembers(sdk))
    if isinstance(value, str) and value.startswith("OTEL_")
)


def start(protocol: str, endpoint: str = NOBODY, **variables: str) -> tuple[str, str]:
    """Set telemetry up and end it; return what it prints: in the end, and before."""
    done = run(sys.executable, PROGRAM, endpoint, protocol, **variables)
    *before, last = [line for line in done.stdout.splitlines() if "telemetry." not in line]
    assert "Traceback" not in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode == 0, done.stderr
    return last, "\n".join(before)


@pytest.mark.parametrize(
    ("protocol", "value"),
    [
        *(("grpc", value) for value in ("none", "", "gzip")),
        *(("http/protobuf", value) for value in ("none", "deflate", " None ")),
    ],
)
def test_every_compression_of_the_specification_is_taken(protocol: str, value: str) -> None:
    """`none` and an empty value among them, by either protocol."""
    assert start(protocol, **{COMPRESSION: value}) == ("set up", "")


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_unknown_compression_is_one_sentence_with_its_variable(protocol: str) -> None:
    """The signal's own variable comes before the one for all."""
    own = "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION"
    variables = {COMPRESSION: "gzip", own: "zstd"}
    said, _ = start(protocol, **variables)
    assert said == f"refused: {own}: is not one of none, gzip, deflate"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_no_variable_makes_a_traceback(protocol: str) -> None:
    """With all of them garbage each refusal names one that is; without those it starts."""
    left = {name: f"garbage-{number}-" for number, name in enumerate(KNOWN)}
    for _ in KNOWN:
        said, _ = start(protocol, SECURE, **left)
        assert "garbage" not in said, "a value may be a secret"
        if said == "set up":
            return
        named = [name for name in left if name in said.replace(",", " ").replace(":", " ").split()]
        assert named and len(named) < len(left), said
        for name in named:
            del left[name]


def test_serve_refuses_a_variable_in_one_line(directory: Path) -> None:
    """Before the CLI is looked at; the exit code says that it did not start."""
    config = config_of(directory, Path("/nonexistent"))
    variables = {COMPRESSION: "zstd", "SAMOVAR_TELEMETRY__ENDPOINT": NOBODY}
    done = run(*SAMOVARD, "serve", "--config", str(config), **variables)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"samovard: {COMPRESSION}: ")
