"""An OTLP collector in the test's own process: gRPC and HTTP, traces and metrics."""

import asyncio
import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.request import urlopen

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Proto
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from support.timeouts import BOUND

KINDS = {kind: name.removeprefix("SPAN_KIND_") for name, kind in Proto.SpanKind.items()}


@dataclass(frozen=True)
class Span:
    """A span as it arrived; times in nanoseconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    begin: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, int]]
    links: list[tuple[str, str]]
    status: str
    resource: dict[str, Any]
    state: str

    @property
    def duration(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True)
class Point:
    """The last data point of a series: its labels, and a number or a histogram."""

    name: str
    kind: str
    unit: str
    labels: dict[str, Any]
    value: float
    count: int
    exemplars: list[str]  # trace ids
    bounds: list[float] = field(default_factory=list)


@dataclass
class Collector:
    """Everything that arrived so far. While `silent`, it fails every export."""

    grpc_url: str = ""
    http_url: str = ""
    spans: list[Span] = field(default_factory=list)
    points: dict[tuple[str, tuple[tuple[str, Any], ...]], Point] = field(default_factory=dict)
    silent: bool = False
    bodies: list[bytes] = field(default_factory=list)

    def named(self, name: str, trace_id: str = "") -> list[Span]:
        """Return the spans of a name, oldest first."""
        found = [s for s in self.spans if s.name == name and trace_id in ("", s.trace_id)]
        return sorted(found, key=lambda span: span.begin)

    def one(self, name: str, trace_id: str = "") -> Span:
        """Return the only span of a name."""
        (span,) = self.named(name, trace_id)
        return span

    async def until(self, condition: Callable[[], object], seconds: float = BOUND) -> None:
        """Wait until the received data meets a condition."""
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    def take_traces(self, request: trace_pb.ExportTraceServiceRequest) -> None:
        self.bodies.append(request.SerializeToString())
        for resource in request.resource_spans:
            about = attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [read_span(span, about) for span in scope.spans]

    def take_metrics(self, request: metrics_pb.ExportMetricsServiceRequest) -> None:
        self.bodies.append(request.SerializeToString())
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in read_points(metric):
                        self._take(point)

    def _take(self, point: Point) -> None:
        key = point.name, tuple(sorted(point.labels.items()))
        if (before := self.points.get(key)) is not None:
            # An exemplar is exported once; the figures are exported repeatedly.
            point.exemplars[:0] = before.exemplars
        self.points[key] = point


def attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: value_of(pair.value) for pair in pairs if isinstance(pair, KeyValue)}


def value_of(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None


def read_span(span: Proto, resource: dict[str, Any]) -> Span:
    return Span(
        span.name,
        KINDS[span.kind],
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        attributes(span.attributes),
        [(event.name, event.time_unix_nano) for event in span.events],
        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_"),
        resource,
        span.trace_state,
    )


def kind_of(metric: Any) -> str:
    """Return the kind of an instrument, as far as the wire shows it."""
    kind = str(metric.WhichOneof("data"))
    if kind == "sum":
        return "counter" if metric.sum.is_monotonic else "up-down counter"
    return kind


def read_points(metric: Any) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points:
        exemplars = [e.trace_id.hex() for e in point.exemplars]
        labels = attributes(point.attributes)
        if kind == "histogram":
            bounds = list(point.explicit_bounds)
            sample = (point.sum, point.count, exemplars, bounds)
        else:
            value = getattr(point, point.WhichOneof("value"))
            sample = (value, 0, exemplars, [])
        yield Point(metric.name, kind_of(metric), metric.unit, labels, *sample)


class _Traces(trace_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        if self._collector.silent:
            context.abort(grpc.StatusCode.UNAVAILABLE, "silent")
        self._collector.take_traces(request)
        return trace_pb.ExportTraceServiceResponse()


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        if self._collector.silent:
            context.abort(grpc.StatusCode.UNAVAILABLE, "silent")
        self._collector.take_metrics(request)
        return metrics_pb.ExportMetricsServiceResponse()


class _Http(BaseHTTPRequestHandler):
    collector: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            data = gzip.decompress(data)
        if not self.collector.silent and self.path == "/v1/traces":
            request = trace_pb.ExportTraceServiceRequest.FromString(data)
            self.collector.take_traces(request)
        elif not self.collector.silent and self.path == "/v1/metrics":
            self.collector.take_metrics(metrics_pb.ExportMetricsServiceRequest.FromString(data))
        self.send_response(503 if self.collector.silent else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Do nothing."""


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on free ports, on threads of its own: no task of it is the test's."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_grpc.add_TraceServiceServicer_to_server(_Traces(collector), server)  # type: ignore[no-untyped-call]  # in its stubs
    metrics_grpc.add_MetricsServiceServicer_to_server(_Metrics(collector), server)  # type: ignore[no-untyped-call]  # as above
    collector.grpc_url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Http", (_Http,), {"collector": collector}))
    collector.http_url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield collector
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
        server.stop(None).wait()


def free() -> str:
    """Return an address on which nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def fetched(address: str) -> dict[str, float]:
    """Return the series that Prometheus fetches, each with its labels, and their values."""
    with urlopen(f"http://{address}/metrics") as response:
        page = str(response.read(), "utf-8")
    lines = (line.rpartition(" ") for line in page.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, _, value in lines}
