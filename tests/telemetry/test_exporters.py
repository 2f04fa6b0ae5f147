"""What leaves and what is lost: a collector that is silent, slow or not there."""

import asyncio
import fcntl
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from structlog.testing import capture_logs
from support.otlp_collector import collecting
from support.service import raw, serving, simple, until

from samovard.telemetry import exporters, providers
from samovard.telemetry.exporters import QUEUE, CountedSpans, Losses, SpanQueue

SEND = "samovar.v1.Session/Send"


@contextmanager
def nobody() -> Iterator[str]:
    """Return the address of a port on which nobody listens, nor can meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_spans_of_the_last_turn_leave_before_the_service_has_ended(
    directory: Path, protocol: str
) -> None:
    """Ending the service waits for the last export, by either protocol, and loses nothing."""

    async def story() -> None:
        with collecting() as collector:
            url = collector.grpc_url if protocol == "grpc" else collector.http_url
            telemetry = {"endpoint": url, "protocol": protocol}
            with capture_logs() as lines:
                async with serving(directory, fake=True, telemetry=telemetry) as run:
                    await raw(run.stub, simple("Say hello"))
            assert not [line for line in lines if line["event"].startswith("telemetry.")]
            assert collector.one(SEND).attributes["samovar.start_mode"] == "cold"
            assert collector.one("invoke_agent default").parent == collector.one(SEND).span_id

    asyncio.run(story())


def free(lock: Path) -> bool:
    """Tells whether another server could have the state directory."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_without_a_collector_turns_run_and_what_is_lost_is_counted(
    directory: Path, protocol: str
) -> None:
    """Nobody listens: turns are served as ever, and the lock is given back before the end."""

    async def story() -> None:
        unlocked: list[bool] = []

        def look(logger: Any, method: str, line: MutableMapping[str, Any]) -> Any:
            if line["event"] == "telemetry.lost":  # what is last, told before the end
                unlocked.append(free(directory / "lock"))
            return line

        with nobody() as address, capture_logs() as lines:
            structlog.get_config()["processors"].insert(0, look)
            telemetry = {"endpoint": address, "protocol": protocol}
            async with serving(directory, fake=True, telemetry=telemetry) as run:
                for _ in range(3):
                    await raw(run.stub, simple("Say hello"))
        # The next server need not wait for what nobody takes.
        assert unlocked == [True]
        (lost,) = [line for line in lines if line["event"] == "telemetry.lost"]
        # Of each turn its call and its agent, of the first the start; a wait now and then.
        assert lost["traces"] >= 3 * 2 + 1

    asyncio.run(story())


def test_a_collector_that_falls_silent_is_told_once(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line when it falls silent, one when it answers again, with what was lost."""
    monkeypatch.setattr(exporters, "EVERY", 0.05)
    monkeypatch.setattr(providers, "EXPORT_TIMEOUT", 0.3)

    async def story() -> None:
        with collecting() as collector, capture_logs() as lines:
            telemetry = {"endpoint": collector.http_url, "protocol": "http/protobuf"}
            async with serving(directory, fake=True, telemetry=telemetry) as run:
                collector.silent = True
                await raw(run.stub, simple("Say one"))
                await until(lambda: told(lines, "telemetry.unanswered", "traces"))
                await raw(run.stub, simple("Say two"))
                collector.silent = False
                await raw(run.stub, simple("Say three"))
                await until(lambda: told(lines, "telemetry.answered", "traces"))
            assert len(told(lines, "telemetry.unanswered", "traces")) == 1
            assert told(lines, "telemetry.answered", "traces")[0]["lost"] >= 1

    asyncio.run(story())


def told(
    lines: list[MutableMapping[str, Any]], event: str, signal: str = ""
) -> list[MutableMapping[str, Any]]:
    """Gives the lines of an event, of one signal if it is named: each tells for itself."""
    found = (line for line in lines if line["event"] == event)
    return [line for line in found if not signal or line["signal"] == signal]


class Stuck(SpanExporter):
    """An exporter that takes nothing until it is let go."""

    def __init__(self) -> None:
        self.exported = 0
        self.free = threading.Event()

    def export(self, spans: object) -> SpanExportResult:
        self.free.wait()
        self.exported += len(spans)  # type: ignore[arg-type]  # a sequence
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.free.set()


def test_what_a_full_queue_pushes_out_is_counted() -> None:
    """However many spans end while nothing leaves: each is exported or counted as lost."""
    losses, stuck = Losses(), Stuck()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SpanQueue(CountedSpans(stuck, losses), losses))
    tracer = provider.get_tracer("test")
    for number in range(3 * QUEUE):
        tracer.start_span(str(number)).end()
    stuck.free.set()
    provider.shutdown()
    assert losses.lost["traces"] > 0
    assert stuck.exported + losses.lost["traces"] == 3 * QUEUE


def test_without_an_endpoint_the_sdk_is_not_even_imported() -> None:
    """A service that exports nothing pays nothing for it, not at its start either."""
    code = "import sys, samovard.app; sys.exit('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
