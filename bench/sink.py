"""`python -m bench.sink`: an OTLP collector that counts spans and keeps none.

Prints the count when it is told to end.
"""

import asyncio
import signal
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

TRACES = "opentelemetry.proto.collector.trace.v1.TraceService"
METRICS = "opentelemetry.proto.collector.metrics.v1.MetricsService"


class Sink:
    """A receiver of what is exported. `spans` is the count so far."""

    def __init__(self) -> None:
        self.spans = 0

    async def traces(
        self, request: ExportTraceServiceRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> ExportTraceServiceResponse:
        """Count a batch of spans."""
        scopes = (scope for sent in request.resource_spans for scope in sent.scope_spans)
        self.spans += sum(len(scope.spans) for scope in scopes)
        return ExportTraceServiceResponse()

    async def metrics(
        self, request: bytes, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> ExportMetricsServiceResponse:
        """Ignore the metrics."""
        return ExportMetricsServiceResponse()


async def main() -> None:
    """Serve on a free port of loopback until it is told to end."""
    sink, server, told = Sink(), grpc.aio.server(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    traces = grpc.unary_unary_rpc_method_handler(
        sink.traces,
        ExportTraceServiceRequest.FromString,
        ExportTraceServiceResponse.SerializeToString,
    )
    metrics = grpc.unary_unary_rpc_method_handler(
        sink.metrics, None, ExportMetricsServiceResponse.SerializeToString
    )
    handlers = ((TRACES, {"Export": traces}), (METRICS, {"Export": metrics}))
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(*handler) for handler in handlers]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listens on 127.0.0.1:{port}", flush=True)
    await told.wait()
    await server.stop(None)
    print(f"spans: {sink.spans}", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
