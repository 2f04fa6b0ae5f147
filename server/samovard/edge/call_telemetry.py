"""Measure every call from its arrival to its end, and report its true status.

The outermost interceptor. It only observes: whatever a handler raises goes on unchanged. Of a
caller's metadata it reads `traceparent` and `tracestate`, and the user agent where spans contain
it.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Collection
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

import grpc
import structlog

from samovard.core.errors import SamovarError
from samovard.core.sessions.conversation import Clocks
from samovard.edge import audit, writes
from samovard.telemetry.facts import OTHER, SEND, Audited, CallFacts
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder
from samovard.telemetry.stages import Stages, stage

CARRIED = ("traceparent", "tracestate")
ATTEMPTS = "grpc-previous-rpc-attempts"
USER_AGENT = "user-agent"
MAX_TEXT = 256  # characters that are kept of a text from the caller
UNWATCHED = "/grpc."  # health and reflection
UNKNOWN_CALLER = "UNAUTHENTICATED"
REFUSED_EVERY = 60.0  # seconds between two lines about calls without a valid credential
#: A caller whose deadline passes leaves a little before our own clock reaches it.
DEADLINE_SLACK = 0.01
#: The kinds of stream; the gate turns most into the first.
FORMS = ("stream_stream", "unary_unary", "unary_stream", "stream_unary")
#: A number of attempts: Python reads no number of any length.
_COUNT = re.compile(r"[0-9]{1,9}\Z")

# Any: grpc's own handler types are generic in its stubs only.
Handler = Any
Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger("samovard.edge")
_current: ContextVar[CallFacts] = ContextVar("call")


def current() -> CallFacts:
    """Return the facts of the call that is being served. Raise `LookupError` outside of one."""
    return _current.get()


def ids() -> dict[str, str]:
    """Return the ids that name the current call in a log line."""
    call = _current.get(None)
    return call.ids if call is not None else {}


def admitted(tenant: str) -> None:
    """Record the tenant of the current call."""
    if (call := _current.get(None)) is not None:
        call.tenant = tenant


def audited(record: Audited) -> str:
    """Keep the audit record of the current call. Return the id of the call's trace."""
    if (call := _current.get(None)) is None:
        return ""
    call.audited = record
    return call.context.trace_id if call.context is not None else ""


def failed(error: SamovarError) -> None:
    """Record why the current call fails."""
    if (call := _current.get(None)) is not None:
        call.reason, call.cause = error.reason, error.cause
        call.prompt_written = error.prompt_written


def prompt_written() -> bool:
    """True if the current call's turn has written its prompt."""
    call = _current.get(None)
    turn = call and (call.turn or call.joined)
    return turn is not None and turn.prompt_written


async def write(context: Context, response: Any) -> None:
    """Write a response, and measure how long the caller takes to accept it, in seconds."""
    await audit.allow()
    call = _current.get()
    begin = call.stages.now()
    try:
        await writes.write(context, response)
    finally:
        call.write_blocked += call.stages.now() - begin


def form_of(handler: Handler) -> tuple[str, Any]:
    """Return a handler's kind of stream, as grpc names it, and its behavior."""
    for form in FORMS:
        if (behavior := getattr(handler, form)) is not None:
            return form, behavior
    raise LookupError("a handler without a behavior")


class Refusals:
    """Log calls without a valid credential: one line at once, then at most one per interval.

    Such calls cost their caller nothing; a line for each would let any caller fill the log.
    """

    def __init__(self) -> None:
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self) -> None:
        """Count a call. Log the count, unless the last line is too recent."""
        self._count += 1
        if self._timer is None:
            self._tell()

    def _tell(self) -> None:
        self._timer = None
        if self._count:
            _log.info("credential.refused", count=self._count)
            self._count = 0
            self._timer = asyncio.get_running_loop().call_later(REFUSED_EVERY, self._tell)


class CallTelemetry(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # in its stubs only
    """Interceptor that makes a `CallFacts` for each RPC. `methods` are those that exist."""

    def __init__(self, recorder: Recorder, clocks: Clocks, methods: Collection[str]) -> None:
        self._recorder = recorder
        self._clocks = clocks
        self._methods = methods
        self._refusals = Refusals()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Begin a call, and return its handler wrapped for measurement."""
        if handler_call_details.method.startswith(UNWATCHED):
            return await continuation(handler_call_details)
        call = self._began(handler_call_details)
        _current.set(call)
        handler = None
        try:
            handler = await continuation(handler_call_details)
        finally:
            if handler is None:  # no such method, or the caller left while it was authenticated
                left = asyncio.current_task()
                gone = left is not None and left.cancelling()
                self._ended(call, "CANCELLED" if gone else "UNIMPLEMENTED")
        return None if handler is None else self._watched(handler, call)

    def _began(self, details: grpc.HandlerCallDetails) -> CallFacts:
        known = details.method in self._methods
        method = details.method if known else OTHER
        stages = Stages(self._clocks.monotonic, self._clocks.wall())
        metadata = dict(details.invocation_metadata or ())
        attempt = str(metadata.get(ATTEMPTS, ""))
        call = CallFacts(
            method.removeprefix("/"), stages, int(attempt) if _COUNT.match(attempt) else 0
        )
        if not known:
            call.original = details.method.removeprefix("/")[:MAX_TEXT]
        carrier = {key: str(metadata[key]) for key in CARRIED if key in metadata}
        if self._recorder.callers:
            call.user_agent = str(metadata.get(USER_AGENT, ""))[:MAX_TEXT]
        self._recorder.call_began(call, carrier)
        return call

    def _watched(self, handler: Handler, call: CallFacts) -> Handler:
        form, behavior = form_of(handler)
        serialize = handler.response_serializer

        async def watch(request: Any, context: Context) -> Any:
            error: BaseException | None = None
            if self._recorder.callers:
                call.peer = address_of(context.peer())
            try:
                return await behavior(request, context)
            except BaseException as raised:
                error = raised
                raise
            finally:
                self._ended(call, status_of(context, error))
                # Its traceback refers to this frame: the cycle would stay until a garbage
                # collection.
                del error

        def count(response: Any) -> bytes:
            data: bytes = serialize(response)
            call.responses += 1
            call.bytes += len(data)
            return data

        make = getattr(grpc, f"{form}_rpc_method_handler")
        return make(watch, handler.request_deserializer, count if serialize else None)

    def _ended(self, call: CallFacts, status: str) -> None:
        call.status, call.ended = status, True
        if call.method == SEND:
            stage(call.stages, "deliver")
        else:
            call.stages.mark("deliver")
        # Reporting must not keep the caller waiting for the status.
        asyncio.get_running_loop().call_soon(self._tell, call)

    def _tell(self, call: CallFacts) -> None:
        self._recorder.call_ended(call)
        if call.turn is not None:
            call.turn.call_ended()
        elif call.status == UNKNOWN_CALLER:
            if call.method == SEND:
                self._recorder.incident("turn.refused")
            self._refusals.add()
        elif call.status != "OK" and call.method == SEND and call.joined is None:
            incident(self._recorder, "turn.refused", **call.line())
        elif call.status != "OK":
            _log.info("call.failed", **call.line())


def address_of(peer: str) -> str:
    """Return the address in gRPC's name of a peer, without its port; empty for a unix socket."""
    kind, _, address = unquote(peer).partition(":")
    if kind not in ("ipv4", "ipv6"):
        return address
    return address.rpartition(":")[0].strip("[]")


def status_of(context: Context, error: BaseException | None) -> str:
    """Return the name of a call's true status at the end of its handler.

    A call whose caller leaves or whose deadline passes has no code set: a write to a caller that is
    gone fails, and a wait is cancelled (measured, grpcio 1.85.3).
    """
    code = context.code()
    if code is not None:
        return code.name if isinstance(code, grpc.StatusCode) else _name(code)
    left = context.time_remaining()
    gone = context.cancelled() or context.done() or isinstance(error, asyncio.CancelledError)
    if left is not None and left <= (DEADLINE_SLACK if gone else 0):
        return "DEADLINE_EXCEEDED"
    if gone:
        return "CANCELLED"
    return "OK" if error is None else "UNKNOWN"


def _name(code: int) -> str:
    return next(known.name for known in grpc.StatusCode if known.value[0] == code)
