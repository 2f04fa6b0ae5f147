"""The SDK's providers: built when the service starts, flushed last when it ends.

Imported only if something is exported. Uses the SDK and its exporters; `spans` and `instruments`
decide what is exported.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricReader,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from samovard.telemetry import names
from samovard.telemetry.destination import CannotExport, Export
from samovard.telemetry.exporters import (
    EXPORT_TIMEOUT,
    CountedMetrics,
    CountedSpans,
    Losses,
    Prometheus,
    SpanQueue,
)
from samovard.telemetry.facts import CallFacts, StartFacts, TurnFacts
from samovard.telemetry.incidents import incident
from samovard.telemetry.instruments import Instruments, views
from samovard.telemetry.loop_lag import LoopLag
from samovard.telemetry.recorder import Gauges, ModelRequest
from samovard.telemetry.spans import Spans

FLUSH_PART = 0.8  # of the flush time, for the last export; then exporters are shut down
METRICS_EVERY = 15.0  # seconds between exports of metrics
_GRPC_COMPRESSIONS = {"none": "NoCompression", "gzip": "Gzip", "deflate": "Deflate"}
#: The SDK's loggers of exports, silenced because failed exports are logged once and counted here.
_LOUD = ("opentelemetry.exporter", "opentelemetry.sdk._shared_internal")

_log = structlog.get_logger("samovard.telemetry")


class Providers:
    """A recorder that exports.

    As an async context manager it waits on exit for the last export, up to `export.flush` seconds.
    """

    def __init__(self, export: Export) -> None:
        self.losses = Losses()
        self.spans: Spans | None = None
        self._exporters: list[CountedSpans | CountedMetrics] = []
        self._queue: SpanQueue | None = None
        self._flush = export.flush
        self._callers = export.callers
        self._loggers: dict[str, int] = {}
        if export.endpoint:
            self._trace(export)
        self._prometheus = Prometheus(export.prometheus) if export.prometheus else None
        self._meters = self._measure(export)
        meter = self._meters.get_meter(names.SCOPE, export.version, names.SCHEMA)
        self.instruments = Instruments(
            meter,
            export.tools,
            lambda: self.losses.lost,
            tenants=export.tenants,
            old_names=export.old_names,
        )
        self._loop_lag = LoopLag(self.instruments.lag, self._look_failed)

    def _trace(self, export: Export) -> None:
        exporter = CountedSpans(_span_exporter(export), self.losses)
        self._exporters.append(exporter)
        self._queue = SpanQueue(exporter, self.losses)
        sampler = ParentBased(TraceIdRatioBased(export.sample_ratio))
        scope = InstrumentationScope(names.SCOPE, export.version, names.SCHEMA)
        self.spans = Spans(
            self._queue.on_end, sampler, _resource(export), scope, old_names=export.old_names
        )

    def _measure(self, export: Export) -> MeterProvider:
        readers: list[MetricReader] = []
        if export.endpoint:
            exporter = CountedMetrics(_metric_exporter(export), self.losses)
            self._exporters.append(exporter)
            readers.append(PeriodicExportingMetricReader(exporter, 1000 * METRICS_EVERY))
        if self._prometheus is not None:
            readers.append(self._prometheus.reader)
        return MeterProvider(readers, _resource(export), shutdown_on_exit=False, views=views())

    @property
    def detailed(self) -> bool:
        """True: tools are recorded."""
        return True

    @property
    def callers(self) -> bool:
        """True if spans are exported and identify the caller."""
        return self._callers and self.spans is not None

    def listens_on(self, address: str) -> None:
        """Set the address on which callers reach the service, for spans."""
        host, _, port = address.rpartition(":")
        if self.spans is not None and address.startswith("unix:"):
            self.spans.address = {names.SERVER_ADDRESS: address.removeprefix("unix:")}
        elif self.spans is not None:
            self.spans.address = {names.SERVER_ADDRESS: host, names.SERVER_PORT: int(port)}

    def isolates(self, level: str, network: str) -> None:
        """Set the level of the walls around agents, for spans of starts, and what is held of the
        network, for a gauge of both.
        """
        self.instruments.isolation = {"level": level, "network": network}
        if self.spans is not None:
            self.spans.isolation = level

    @property
    def exports_gauges(self) -> bool:
        """True: metrics always have a reader."""
        return True

    def gauges_read(self, gauges: Gauges) -> None:
        """Store the values for exporters, which read them on threads of their own."""
        self.instruments.gauges = gauges

    def _look_failed(self) -> None:
        incident(self, "loop.failed", loop="pulse", exc_info=True)

    def call_began(self, call: CallFacts, carrier: Mapping[str, str]) -> None:
        """Set the call's place in a trace."""
        if self.spans is not None:
            self.spans.begin_call(call, carrier)

    def call_ended(self, call: CallFacts) -> None:
        """Create the call's span and count the call."""
        if self.spans is not None:
            self.spans.end_call(call)
        self.instruments.call(call)

    def turn_ended(self, turn: TurnFacts) -> None:
        """Create the turn's spans and count the turn."""
        if self.spans is not None:
            self.spans.turn(turn)
        self.instruments.turn(turn)

    def start_ended(self, start: StartFacts) -> None:
        """Create the start's span and count the start."""
        if self.spans is not None:
            self.spans.start(start)
        self.instruments.start(start)

    def process_moved(self, source: str, target: str, cause: str) -> None:
        """Count the change of state."""
        self.instruments.moved(source, target, cause)

    def frames_dropped(self, reason: str, count: int) -> None:
        """Count the dropped lines."""
        self.instruments.dropped(reason, count)

    def model_requested(self, request: ModelRequest) -> None:
        """Count the request and its tokens."""
        self.instruments.model_requested(request)

    def incident(self, event: str) -> None:
        """Count the incident."""
        self.instruments.incident(event)

    def store_answered(self, operation: str, seconds: float, result: str) -> None:
        """Record the duration of a store call."""
        self.instruments.stored(operation, seconds, result)

    async def __aenter__(self) -> Self:
        for name in _LOUD:
            logger = logging.getLogger(name)
            self._loggers[name] = logger.level
            logger.setLevel(logging.CRITICAL)
        self._loop_lag.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._loop_lag.stop()
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def finish() -> None:
            if self._queue is not None:
                self._queue.shutdown()  # exports what is queued
            with contextlib.suppress(Exception):  # of a reader; its exporter has counted the loss
                self._meters.shutdown()  # exports the last figures
            if self._prometheus is not None:
                self._prometheus.close()
            _tell(loop, ended)

        # A daemon: a collector that does not answer must not keep the process from exiting.
        threading.Thread(target=finish, name="telemetry-flush", daemon=True).start()
        await _within(self._flush * FLUSH_PART, ended)
        if not ended.is_set():
            # Abort their attempts. Earlier, the last export would find them closed.
            for exporter in self._exporters:
                exporter.shutdown()
            await _within(self._flush * (1 - FLUSH_PART), ended)
        if not ended.is_set():
            _log.warning("telemetry.unflushed")
        if lost := self.losses.lost:
            _log.warning("telemetry.lost", **lost)
        for name, level in self._loggers.items():
            logging.getLogger(name).setLevel(level)


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: __aexit__ no longer waits
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
    """Return the span exporter for the protocol; only that one is imported."""
    compression = _compression("TRACES")
    if export.protocol == "grpc":
        from grpc import Compression
        from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

        packed = Compression[_GRPC_COMPRESSIONS[compression]]
        return grpc.OTLPSpanExporter(export.endpoint, compression=packed, timeout=EXPORT_TIMEOUT)
    from opentelemetry.exporter.otlp.proto import http as otlp
    from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

    url, how = f"{export.endpoint.rstrip('/')}/v1/traces", otlp.Compression(compression)
    return http.OTLPSpanExporter(url, compression=how, timeout=EXPORT_TIMEOUT)


def _metric_exporter(export: Export) -> MetricExporter:
    compression = _compression("METRICS")
    if export.protocol == "grpc":
        from grpc import Compression
        from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc

        packed = Compression[_GRPC_COMPRESSIONS[compression]]
        return grpc.OTLPMetricExporter(export.endpoint, compression=packed, timeout=EXPORT_TIMEOUT)
    from opentelemetry.exporter.otlp.proto import http as otlp
    from opentelemetry.exporter.otlp.proto.http import metric_exporter as http

    url, how = f"{export.endpoint.rstrip('/')}/v1/metrics", otlp.Compression(compression)
    return http.OTLPMetricExporter(url, compression=how, timeout=EXPORT_TIMEOUT)


def _compression(signal: str) -> str:
    """Return the compression of a signal: `none`, `gzip` or `deflate`.

    Read here because the gRPC exporter (1.45) rejects `none` and the empty value, which the
    specification allows. Raise `CannotExport` for any other value.
    """
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"):
        if value := os.environ.get(name, "").strip().lower():
            if value not in _GRPC_COMPRESSIONS:
                known = ", ".join(_GRPC_COMPRESSIONS)
                raise CannotExport(f"{name}: is not one of {known}")
            return value
    return "none"
