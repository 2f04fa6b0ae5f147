"""The single entrance: every call is authenticated and authorized before its message is read.

Knows which method needs which scope; a method without a row is denied. A denied call is answered by
a stream handler that reads nothing, so that a large message costs nothing. Where a certificate or
the peer decides, the check is that handler's own first step.
"""

import asyncio
import contextlib
import inspect
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, NoReturn

import grpc
import structlog

from samovard.audit.log import audit_down
from samovard.audit.trail import Trail
from samovard.core.errors import Internal, QuotaExceeded, SamovarError, ScopeMissing
from samovard.edge import audit, call_telemetry, writes
from samovard.edge.call_telemetry import form_of
from samovard.edge.identity import Caller, Evidence, Identity, set_caller
from samovard.edge.permits import Permits
from samovard.edge.receiving import received
from samovard.edge.revocation import Revocation, ServedCall
from samovard.edge.status import Answering, abort
from samovard.telemetry.facts import OTHER

OPEN = ""  # the scope of a method that needs no credential
KNOWN = "*"  # the scope of a method that needs a credential, with any scope
ADMIN = "admin"
UNIMPLEMENTED = "UNIMPLEMENTED"  # in place of a reason if there is no such method
STRANGERS = 8  # concurrent calls without a credential, where callers have credentials
PROBE_WATCHERS = 32  # half of the concurrent calls that probes may make

SESSION = {
    "/samovar.v1.Session/Send": "session.send",
    "/samovar.v1.Session/Attach": "session.read",
    "/samovar.v1.Session/Interrupt": "session.control",
    "/samovar.v1.Session/Respond": "session.control",
    "/samovar.v1.Session/GetSession": "session.read",
    "/samovar.v1.Session/ListSessions": "session.read",
    "/samovar.v1.Session/CloseSession": "session.control",
    "/samovar.v1.Session/GetUsage": "session.read",
}
POOL = {
    "/samovar.v1.Pool/ListPools": ADMIN,
    "/samovar.v1.Pool/ListProcesses": ADMIN,
    "/samovar.v1.Pool/WatchPools": ADMIN,
    "/samovar.v1.Pool/DrainPool": ADMIN,
    "/samovar.v1.Pool/ListUsage": ADMIN,
    "/samovar.v1.Pool/PausePool": ADMIN,
    "/samovar.v1.Pool/ResumePool": ADMIN,
    "/samovar.v1.Pool/InterruptSession": ADMIN,
    "/samovar.v1.Pool/CloseTenantSession": ADMIN,
    "/samovar.v1.Pool/UnblockSession": ADMIN,
}
_ASKED = ("/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List")
_WATCHED = "/grpc.health.v1.Health/Watch"
HEALTH = dict.fromkeys((*_ASKED, _WATCHED), OPEN)
_REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"

Table = Mapping[str, str]
# Any: grpc's own handler types are generic in its stubs only.
Handler = Any
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]
Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger("samovard.edge")


def public_table(*, reflects: bool, health: bool = False) -> Table:
    """Return the scopes of the callers' listener. `health`: it needs no credential."""
    asked = dict.fromkeys(_ASKED, OPEN if health else KNOWN)
    reflection = {_REFLECTION: "session.read"} if reflects else {}
    return {**SESSION, **asked, _WATCHED: KNOWN, **reflection}


def operator_table() -> Table:
    """Return the scopes of the operator's listener."""
    return {**POOL, **HEALTH, _REFLECTION: ADMIN}


class AtOnce:
    """A bound on concurrent calls, which wraps the behavior that answers them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._calls = 0

    def __call__(self, behavior: Any) -> Any:
        """Return a behavior that refuses calls beyond the bound."""

        async def count(request: Any, context: Context) -> Any:
            if self._calls >= self._limit:
                await abort(context, _too_many("without a credential"))
            self._calls += 1
            try:
                return await behavior(request, context)
            finally:
                self._calls -= 1

        return count


def public_open() -> Mapping[str, AtOnce]:
    """Return the bounds of methods that need no credential, which all of them share."""
    return dict.fromkeys(_ASKED, AtOnce(STRANGERS))


def probes_open() -> Mapping[str, AtOnce]:
    """Return the bound of watching probes, which leaves room for other calls."""
    return {_WATCHED: AtOnce(PROBE_WATCHERS)}


class Guard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # in its stubs only
    """Around the gate: its defects become a constant text, never their own.

    Those of what answers do so in the gate, which is around all of that.
    """

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler, or one that denies if the gate meets a defect."""
        try:
            return await continuation(handler_call_details)
        except Exception:
            return _denying(_defect())


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # as above
    """Interceptor that authenticates, authorizes, and sets the caller for the handler."""

    def __init__(
        self,
        identity: Identity,
        table: Table,
        revocation: Revocation,
        open: "Mapping[str, AtOnce] | None" = None,
        each: int | None = None,
        total: int | None = None,
        trail: Trail | None = None,
    ) -> None:
        self._identity = identity
        self._table = table
        self._revocation = revocation
        self._trail = trail
        #: The bounds of methods that need no credential.
        self._open = open or {}
        self._permits = Permits()
        #: The most concurrent calls of one tenant, and of all; None for no bound.
        self._each = each
        self._total = total
        self._calls: Counter[str] = Counter()

    @property
    def methods(self) -> Collection[str]:
        """The methods that have a row."""
        return self._table

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Return the handler behind the gate, or one that denies."""
        method = handler_call_details.method
        scope = self._table.get(method)
        metadata = tuple(handler_call_details.invocation_metadata or ())
        if scope == OPEN and (
            method not in self._open or not await self._knows(Evidence(metadata))
        ):
            handler = self._received(await continuation(handler_call_details))
            return _wrapped(handler, lambda behavior: guarded(self._opening(method, behavior)))
        self._begin(method, scope)
        caller: Caller | None = None
        try:
            if not self._identity.needs_peer:
                caller = await self._caller(Evidence(metadata), scope)
        except SamovarError as error:
            return _denying(error)
        admitting = partial(self._admitting, caller, scope)
        if scope is None:
            # UNIMPLEMENTED, but only once the caller is known; also for a method that exists and
            # has no row.
            return await self._unknown() if caller else _wrapped(_UNKNOWN, admitting)
        return _wrapped(self._received(await continuation(handler_call_details)), admitting)

    def _begin(self, method: str, scope: str | None) -> None:
        """Begin the call's audit record.

        Health has none, because its answer is the same for everyone.
        """
        if self._trail is not None and method not in HEALTH:
            known = method.removeprefix("/") if scope is not None else OTHER
            record = self._trail.call(known)
            record.trace_id = call_telemetry.audited(record)
            audit.begin(record)

    async def _unknown(self) -> Handler:
        try:
            await audit.refused(UNIMPLEMENTED)
        except SamovarError as error:
            return _denying(error)
        return None

    async def _caller(self, evidence: Evidence, scope: str | None) -> Caller:
        caller = await self._identity.caller(evidence)
        audit.known(caller)
        self._revocation.check(caller)
        if scope is not None and scope not in (OPEN, KNOWN, *caller.scopes):
            raise ScopeMissing(scope)
        return caller

    def _received(self, handler: Handler) -> Handler:
        if handler is None or handler.request_streaming:
            return handler
        return received(handler, self._permits)

    async def _knows(self, evidence: Evidence) -> bool:
        """True if the call shows a valid credential, so that the bound on strangers does not
        apply.
        """
        with contextlib.suppress(SamovarError):
            return bool(await self._identity.caller(evidence))
        return False

    def _opening(self, method: str, behavior: Any) -> Any:
        """Return the behavior that answers a call without a credential in its metadata."""
        bounded = self._open[method](behavior) if method in self._open else behavior
        if method not in self._open or not self._identity.needs_peer:
            return bounded
        admitted = self._admitting(None, KNOWN, behavior)

        async def answer(request: Any, context: Context) -> Any:
            # The certificate is only available here.
            known = await self._knows(_evidence(context))
            return await (admitted if known else bounded)(request, context)

        return answer

    def _crowd(self, tenant: str) -> str:
        """Return whose bound a tenant's next call would exceed, for the message; empty if none."""
        if self._each is not None and self._calls[tenant] >= self._each:
            return "of the tenant"
        full = self._total is not None and self._calls.total() >= self._total
        return "of all tenants" if full else ""

    def _admitting(self, known: Caller | None, scope: str | None, behavior: Any) -> Any:
        async def admit(request: Any, context: Context) -> Any:
            # One frame for all that is around a handler: each is entered again with each of its
            # waits, some ten times in a turn.
            try:
                call = await self._admit(known, scope, context)
                try:
                    return await behavior(request, context)
                except (asyncio.CancelledError, grpc.aio.InternalError) as left:
                    refusal = None if isinstance(left, grpc.aio.InternalError) else call.refusal()
                    if refusal is not None:
                        await abort(context, refusal)
                    audit.left()
                    raise
                finally:
                    self._leave(call)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                await _told(context, error)

        return admit

    async def _admit(self, known: Caller | None, scope: str | None, context: Context) -> ServedCall:
        audit.came_from(context.peer())
        try:
            caller = known or await self._caller(_evidence(context), scope)
        except SamovarError as error:
            await abort(context, error)
        set_caller(caller)
        if scope != KNOWN and self._trail is not None and self._trail.down:
            await abort(context, audit_down())
        call_telemetry.admitted(caller.tenant)
        if whose := self._crowd(caller.tenant):
            await abort(context, _too_many(whose))
        self._calls[caller.tenant] += 1
        return self._revocation.begin(caller)

    def _leave(self, call: ServedCall) -> None:
        self._revocation.end(call)
        tenant = call.caller.tenant
        self._calls[tenant] -= 1
        if not self._calls[tenant]:
            del self._calls[tenant]


def _evidence(context: Context) -> Evidence:
    """Return the evidence of a call. A certificate entry that is not text names no tenant."""
    shown = context.auth_context()
    uris = [value.decode("ascii", "replace") for value in shown.get("peer_uri", ())]
    names = [value.decode("ascii", "replace") for value in shown.get("peer_dns", ())]
    return Evidence(tuple(context.invocation_metadata() or ()), context.peer(), uris, names)


def guarded(behavior: Any) -> Any:
    """Return a behavior whose defects become a constant text, never their own."""

    async def guard(request: Any, context: Context) -> Any:
        try:
            return await behavior(request, context)
        except Exception as error:
            await _told(context, error)

    return guard


async def _told(context: Context, error: Exception) -> NoReturn:
    """Tell the caller of an uncaught error in a constant text. To be called while it is handled."""
    if isinstance(error, grpc.aio.AbortError):
        # gRPC keeps it with the call, and it the call by its frames: without them nothing
        # large, such as the message, stays until a collection of cycles.
        error.__context__ = None
        raise error.with_traceback(None) from None
    if isinstance(error, grpc.aio.InternalError):
        # gRPC could not write: the caller has gone, and there is no one to tell.
        raise asyncio.CancelledError from None
    await abort(context, _defect())


def _too_many(whose: str) -> QuotaExceeded:
    message = f"too many calls {whose} at once"
    return QuotaExceeded("calls", message, cause="calls", retry_after=1.0)


def _defect() -> Internal:
    """Log the exception that is being handled, and return the error for the caller."""
    ids = {"trace_id": secrets.token_hex(16)} | call_telemetry.ids()
    _log.exception("defect", **ids)
    return Internal(
        "the service broke a rule of its own", cause="defect", metadata={"traceId": ids["trace_id"]}
    )


def _wrapped(handler: Handler, wrap: Callable[[Any], Any]) -> Handler:
    """Wrap the behavior of a handler, of any kind of stream."""
    # grpc has no handler for an unknown method, though its types say so.
    if handler is None:
        return handler
    form, behavior = form_of(handler)
    if inspect.isasyncgenfunction(behavior):
        behavior = _written(behavior)
    make = getattr(grpc, f"{form}_rpc_method_handler")
    return make(wrap(behavior), handler.request_deserializer, handler.response_serializer)


def _written(generate: Any) -> Any:
    """Return a behavior that writes the responses that another one, such as reflection's,
    yields.
    """

    async def write(requests: Any, context: Context) -> None:
        async with Answering(context):
            await audit.allow()
        async with contextlib.aclosing(generate(requests, context)) as responses:
            async for response in responses:
                await writes.write(context, response)

    return write


async def _no_method(requests: Any, context: Context) -> None:
    async with Answering(context):
        await audit.refused(UNIMPLEMENTED)
    # In gRPC's own words.
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


_UNKNOWN = grpc.stream_stream_rpc_method_handler(_no_method)


def _denying(error: SamovarError) -> Handler:
    async def deny(requests: Any, context: Context) -> None:
        audit.came_from(context.peer())
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(guarded(deny))
