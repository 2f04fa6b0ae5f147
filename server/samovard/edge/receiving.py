"""Receive the one message of a call, within a time limit.

gRPC reads the message of a unary handler before it calls the handler, for as long as that takes and
without a bound on how many are being received. A stream handler is called at once and reads for
itself; on the wire both are the same.

Knows gRPC's handlers. Knows nothing of methods or callers.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from samovard.core.errors import QuotaExceeded, RequestInvalid
from samovard.edge import audit
from samovard.edge.identity import tenant
from samovard.edge.permits import Permits
from samovard.edge.status import Answering, abort
from samovard.edge.writes import write

#: Seconds within which a whole message must arrive: 8 MiB at 7 Mbit/s.
MESSAGE_TIME = 10.0
#: Seconds that a call waits for a permit to receive its message.
PATIENCE = 30.0

# Any: grpc's own handler types are generic in its stubs only.
Handler = Any
Context = grpc.aio.ServicerContext[Any, Any]

_UNREADABLE = object()  # stands for a request that is no message of its method


def received(handler: Handler, permits: Permits) -> Handler:
    """Return a stream handler that receives a message and runs a unary handler with it."""
    behavior = handler.unary_stream or handler.unary_unary

    async def run(_: Any, context: Context) -> None:
        response = await behavior(await _permitted(permits, context), context)
        async with Answering(context):
            await audit.allow()
        if response is not None:
            await write(context, response)

    return grpc.stream_stream_rpc_method_handler(
        run, _reader(handler.request_deserializer), handler.response_serializer
    )


async def _permitted(permits: Permits, context: Context) -> Any:
    try:
        async with permits.one(tenant(), PATIENCE):
            return await _receive(context)
    except TimeoutError:
        message = "too many messages are being received"
        await abort(context, QuotaExceeded("messages", message, cause="messages", retry_after=1.0))


async def _receive(context: Context) -> Any:
    try:
        async with asyncio.timeout(MESSAGE_TIME):
            request = await context.read()
    except TimeoutError:
        await abort(context, RequestInvalid(("", f"no message came in {MESSAGE_TIME:g} s")))
    if request is grpc.aio.EOF:  # type: ignore[attr-defined]  # not in its stubs
        await abort(context, RequestInvalid(("", "the call has no message")))
    if request is _UNREADABLE:
        await abort(context, RequestInvalid(("", "the bytes are no message of this method")))
    return request


def _reader(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a deserializer that never raises: gRPC would show the exception to the caller."""

    def read(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError:
            return _UNREADABLE

    return read
