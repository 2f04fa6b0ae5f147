"""Receive spans on loopback: as much of an OTLP collector as a demonstration needs.

Knows OTLP over HTTP. Knows nothing of what the spans mean.
"""

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from samovard.demo.waterfall import Span, Value

MAX_BODY = 16 << 20
STOP_TIMEOUT = 0.2


class Receiver:
    """The server: an async context manager. `url` is its address once it runs."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self._arrived = asyncio.Event()
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/v1/traces", self._traces)
        app.router.add_post("/v1/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=STOP_TIMEOUT)

    async def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait until the received spans meet a condition. Return True if they do in time."""
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            return False
        return True

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._runner.cleanup()

    async def _traces(self, request: web.Request) -> web.Response:
        sent = ExportTraceServiceRequest.FromString(await request.read())
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                self.spans += [_read(span) for span in scope.spans]
        self._arrived.set()
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.Response:
        await request.read()
        return web.Response()


def _read(span: Sent) -> Span:
    return Span(
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        _attributes(span.attributes),
        tuple((event.name, event.time_unix_nano) for event in span.events),
        span.status.code == Status.STATUS_CODE_ERROR,
    )


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind in ("string_value", "int_value", "double_value", "bool_value"):
        found: Value = getattr(value, kind)
        return found
    return ""  # an array; no attribute that is shown has one
