"""The one way in: every call is authenticated and authorized before it is read.

Knows which method needs which scope; a method without a row is denied. What is denied is
answered by a stream handler that reads nothing, so that a large message costs nothing.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc
import structlog
from google.protobuf.message import DecodeError

from samovard.core.errors import Internal, RequestInvalid, SamovarError, ScopeMissing
from samovard.edge import observe
from samovard.edge.identity import Evidence, Identity, set_caller
from samovard.edge.status import abort

OPEN = ""  # the scope of what needs no credential
ADMIN = "admin"

SESSION = {
    "/samovar.v1.Session/Send": "session.send",
    "/samovar.v1.Session/Attach": "session.read",
    "/samovar.v1.Session/Interrupt": "session.control",
    "/samovar.v1.Session/Respond": "session.control",
    "/samovar.v1.Session/GetSession": "session.read",
    "/samovar.v1.Session/ListSessions": "session.read",
    "/samovar.v1.Session/CloseSession": "session.control",
}
POOL = {
    "/samovar.v1.Pool/ListPools": ADMIN,
    "/samovar.v1.Pool/ListProcesses": ADMIN,
    "/samovar.v1.Pool/WatchPools": ADMIN,
    "/samovar.v1.Pool/DrainPool": ADMIN,
}
HEALTH = {
    "/grpc.health.v1.Health/Check": OPEN,
    "/grpc.health.v1.Health/Watch": OPEN,
    "/grpc.health.v1.Health/List": OPEN,
}
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

Table = Mapping[str, str]
# Any: grpc's own handler types are generic in its stubs only.
Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger("samovard.edge")
_UNREADABLE = object()  # stands for a request that is no message of its method


def public_table(*, reflects: bool) -> Table:
    """Gives the scopes of the callers' listener."""
    return {**SESSION, **HEALTH, **({_REFLECTION: "session.read"} if reflects else {})}


def operator_table() -> Table:
    """Gives the scopes of the operator's listener."""
    return {**POOL, **HEALTH, _REFLECTION: ADMIN}


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # in its stubs only
    """Around all that answers: what nobody caught becomes a constant text, never its own."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Wraps the handler; a gate that meets a defect denies."""
        try:
            handler = await continuation(handler_call_details)
        except Exception:
            return _denying(_defect())
        return _wrapped(handler, _guarded)


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # as above
    """Authenticates, authorizes, and notes the caller for the handler."""

    def __init__(self, identity: Identity, table: Table) -> None:
        self._identity = identity
        self._table = table

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Gives the handler behind the gate, or one that denies."""
        method = handler_call_details.method
        scope = self._table.get(method)
        if scope == OPEN:
            return _wrapped(await continuation(handler_call_details), _refusing_unreadable)
        metadata = tuple(handler_call_details.invocation_metadata or ())
        try:
            # By metadata alone: the peer is only known to the handler, which looks again.
            caller = await self._identity.caller(Evidence(metadata))
            if scope is not None and scope not in caller.scopes:
                raise ScopeMissing(scope)
        except SamovarError as error:
            return _denying(error)
        if scope is None:
            # UNIMPLEMENTED, but only now that the caller is known: also for a method that
            # exists and has no row.
            return None
        return _wrapped(await continuation(handler_call_details), self._admitting)

    def _admitting(self, behavior: Any) -> Any:
        async def admit(request: Any, context: Context) -> Any:
            evidence = Evidence(tuple(context.invocation_metadata() or ()), context.peer())
            try:
                caller = await self._identity.caller(evidence)
            except SamovarError as error:
                await abort(context, error)
            set_caller(caller)
            observe.admitted(caller.tenant)
            return await _refusing_unreadable(behavior)(request, context)

        return admit


def _refusing_unreadable(behavior: Any) -> Any:
    async def refuse(request: Any, context: Context) -> Any:
        if request is _UNREADABLE:
            await abort(context, RequestInvalid(("", "the bytes are no message of this method")))
        return await behavior(request, context)

    return refuse


def _guarded(behavior: Any) -> Any:
    async def guard(request: Any, context: Context) -> Any:
        try:
            return await behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except grpc.aio.InternalError:
            # gRPC could not write: the caller has gone, and nobody is left to be told.
            raise asyncio.CancelledError from None
        except Exception:
            await abort(context, _defect())

    return guard


def _defect() -> Internal:
    """Logs what is being handled, and gives what the caller is told of it."""
    ids = {"trace_id": secrets.token_hex(16)} | observe.ids()
    _log.exception("defect", **ids)
    return Internal(
        "the service broke a rule of its own", cause="defect", metadata={"traceId": ids["trace_id"]}
    )


def _wrapped(handler: Handler, wrap: Callable[[Any], Any]) -> Handler:
    """Wraps the behavior of a handler of ours; reflection, the only stream in, stays as it is."""
    # grpc has no handler for an unknown method, though its types say so.
    if handler is None or handler.request_streaming:
        return handler
    read = _reader(handler.request_deserializer)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            wrap(handler.unary_stream), read, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(
        wrap(handler.unary_unary), read, handler.response_serializer
    )


def _reader(deserializer: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    """Return a deserializer that never raises: gRPC would tell the caller the exception."""

    def read(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError:
            return _UNREADABLE

    return read


def _denying(error: SamovarError) -> Handler:
    async def deny(requests: Any, context: Context) -> None:
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(deny)
