"""Exporters that count what is lost.

A collector that does not answer does not slow down the service: exporters run on threads of their
own behind a bounded queue. The endpoint from which Prometheus fetches metrics over plain HTTP has
a thread of its own, too. Uses the SDK; independent of what is exported.
"""

import threading
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry, start_http_server

from samovard.telemetry.destination import CannotExport

QUEUE = 2048  # spans waiting for export
BATCH = 512
EVERY = 1.0  # seconds between exports of spans
EXPORT_TIMEOUT = 5.0

TRACES, METRICS = "traces", "metrics"

_log = structlog.get_logger("samovard.telemetry")


class Losses:
    """Count lost items by signal, and log once when a collector stops or resumes answering."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lost: Counter[str] = Counter()
        self._silent: set[str] = set()

    @property
    def lost(self) -> dict[str, int]:
        """The items lost so far, by signal."""
        with self._lock:
            return dict(self._lost)

    def add(self, signal: str, count: int) -> None:
        """Count items that will not be exported."""
        with self._lock:
            self._lost[signal] += count

    def exported(self, signal: str, count: int, *, well: bool) -> None:
        """Record one export of `count` items; `well` is True if it succeeded."""
        if not well:
            self.add(signal, count)
        was_silent = signal in self._silent
        if well and was_silent:
            self._silent.discard(signal)
            _log.warning("telemetry.answered", signal=signal, lost=self.lost.get(signal, 0))
        elif not well and not was_silent:
            self._silent.add(signal)
            _log.warning("telemetry.unanswered", signal=signal)


class CountedSpans(SpanExporter):
    """Export spans through another exporter, and count them."""

    def __init__(self, inner: SpanExporter, losses: Losses) -> None:
        self._inner = inner
        self._losses = losses
        self.taken = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export a batch; it is lost if that fails."""
        self.taken += len(spans)
        result = self._inner.export(spans)
        self._losses.exported(TRACES, len(spans), well=result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """Shut down at once and abort an export in progress."""
        self._inner.shutdown()


class SpanQueue(SpanProcessor):
    """Pass ended spans to an exporter in batches, from a bounded queue.

    When the queue is full, a new span replaces the oldest. Spans must end on one thread only.
    """

    def __init__(self, exporter: CountedSpans, losses: Losses) -> None:
        self._exporter = exporter
        self._losses = losses
        self._ended = 0
        self._batches = BatchSpanProcessor(exporter, QUEUE, 1000 * EVERY, BATCH)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: spans are queued when they end."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span if it is sampled."""
        if span.context is not None and span.context.trace_flags.sampled:
            if self._ended - self._exporter.taken < QUEUE:
                self._ended += 1
            else:
                self._losses.add(TRACES, 1)
            self._batches.on_end(span)

    def shutdown(self) -> None:
        """Export what is queued and shut down."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]  # in the SDK

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what is queued."""
        return self._batches.force_flush(timeout_millis)


class CountedMetrics(MetricExporter):
    """Export metrics through another exporter, and count data points."""

    def __init__(self, inner: MetricExporter, losses: Losses) -> None:
        super().__init__()
        self._inner = inner
        self._losses = losses

    def export(
        self,
        metrics_data: MetricsData,
        timeout_millis: float = 10_000,
        **options: Any,  # the SDK's own
    ) -> MetricExportResult:
        """Export a collection. If that fails, a later export has the sums, which keep growing."""
        result = self._inner.export(metrics_data, timeout_millis, **options)
        well = result is MetricExportResult.SUCCESS
        self._losses.exported(METRICS, _points(metrics_data), well=well)
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Return True: there is nothing to flush."""
        return True

    def shutdown(self, timeout_millis: float = 30_000, **options: Any) -> None:
        """Abort an export in progress and shut down at once."""
        self._inner.shutdown(timeout_millis, **options)


def _points(data: MetricsData) -> int:
    scopes = (scope for resource in data.resource_metrics for scope in resource.scope_metrics)
    return sum(len(metric.data.data_points) for scope in scopes for metric in scope.metrics)


class Prometheus:
    """Serve metrics on `host:port`, read from `reader`.

    Raise `CannotExport` if the address cannot be listened on.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(
            disable_target_info=False, scope_info_enabled=False, registry=registry
        )
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), registry=registry
            )
        except OSError as error:
            raise CannotExport(
                f"telemetry.prometheus_listen: cannot listen on {address}: {error.strerror}"
            ) from error
        self.port = self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
