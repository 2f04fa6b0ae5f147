"""The SDK's providers: built when the service starts, flushed last when it ends.

Imported only where something is exported. Knows the SDK and its exporters; what is told
with them, `spans` knows.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from samovard.telemetry import names
from samovard.telemetry.call import Call
from samovard.telemetry.export import Export
from samovard.telemetry.exporters import EXPORT_TIMEOUT, CountedSpans, Losses, SpanQueue
from samovard.telemetry.observation import Observation
from samovard.telemetry.spans import Ids, Spans
from samovard.telemetry.start import Start

FLUSH_TIMEOUT = 1.5  # seconds that the end waits for the last export
STOP_TIMEOUT = 0.5  # and then for the exporters' threads
#: The SDK's words on exports; ours are said once and counted.
_LOUD = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")

_log = structlog.get_logger("samovard.telemetry")


class Providers:
    """Exports what it hears. An async context manager that waits for the last export, not long."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self.losses = Losses()
        self._exporter = CountedSpans(_span_exporter(export), self.losses)
        sampler = ParentBased(TraceIdRatioBased(export.sample_ratio))
        ids = Ids()
        self._tracers = TracerProvider(
            sampler, _resource(export), shutdown_on_exit=False, id_generator=ids
        )
        self._tracers.add_span_processor(SpanQueue(self._exporter, self.losses))
        tracer = self._tracers.get_tracer(names.SCOPE, export.version, schema_url=names.SCHEMA)
        self.spans = Spans(tracer, ids, tools=not export.agent_spans)
        self._levels: dict[str, int] = {}

    @property
    def detailed(self) -> bool:
        """Tools are followed."""
        return True

    def listens_on(self, address: str) -> None:
        """Hears where callers reach the service."""
        host, _, port = address.rpartition(":")
        if address.startswith("unix:"):
            self.spans.address = {names.SERVER_ADDRESS: address.removeprefix("unix:")}
        else:
            self.spans.address = {names.SERVER_ADDRESS: host, names.SERVER_PORT: int(port)}

    def call_began(self, call: Call, carrier: Mapping[str, str]) -> None:
        """Begins the call's span."""
        self.spans.begin_call(call, carrier)

    def call_ended(self, call: Call) -> None:
        """Ends the call's span."""
        self.spans.end_call(call)

    def turn_ended(self, turn: Observation) -> None:
        """Makes the turn's spans."""
        self.spans.turn(turn)

    def start_ended(self, start: Start) -> None:
        """Makes the start's span."""
        self.spans.start(start)

    def process_moved(self, source: str, target: str, cause: str) -> None:
        """Does nothing yet."""

    def flush(self) -> None:
        """Exports what is queued; blocks."""
        self._tracers.force_flush()

    async def __aenter__(self) -> Self:
        for name in _LOUD:
            logger = logging.getLogger(name)
            self._levels[name] = logger.level
            logger.setLevel(logging.CRITICAL)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        flushed, ended = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def finish() -> None:
            self.flush()
            _tell(loop, flushed)
            self._tracers.shutdown()
            _tell(loop, ended)

        # A daemon: the process must be able to end whatever a collector does.
        threading.Thread(target=finish, name="telemetry-flush", daemon=True).start()
        await _within(FLUSH_TIMEOUT, flushed)
        self._exporter.shutdown()
        await _within(STOP_TIMEOUT, ended)
        if lost := self.losses.lost:
            _log.warning("telemetry.lost", **lost)
        for name, level in self._levels.items():
            logging.getLogger(name).setLevel(level)


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # nobody waits any more: the loop is closed
        loop.call_soon_threadsafe(event.set)


async def _within(seconds: float, event: asyncio.Event) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), seconds)


def _resource(export: Export) -> Resource:
    return Resource.create(
        {
            "service.name": "samovard",
            "service.version": export.version,
            "service.instance.id": export.server_id,
        }
    )


def _span_exporter(export: Export) -> SpanExporter:
    """Makes the exporter of one protocol; only that one is imported."""
    if export.protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        return grpc.OTLPSpanExporter(export.endpoint, timeout=EXPORT_TIMEOUT)
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    url = f"{export.endpoint.rstrip('/')}/v1/traces"
    return http.OTLPSpanExporter(url, timeout=EXPORT_TIMEOUT)
