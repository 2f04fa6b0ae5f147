"""Calls through the real edge: the way in, the deserialiser, the handlers, the statuses.

What stands behind it looks at what reaches the core. What grpcio itself does (sockets, frames,
the bound on a message's size) is not run.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from msgspec import Struct
from support.memory_store import NothingUsed
from support.revocation_fakes import revocation

from fuzz.behind import Controlled, Core, Operated
from fuzz.drawing import TURN, edited, fields, text
from fuzz.target import Check, Target
from samovar.v1 import pool_pb2, pool_pb2_grpc, session_pb2, session_pb2_grpc
from samovard.app import CLOCKS
from samovard.edge import gate, validate
from samovard.edge.call_telemetry import CallTelemetry
from samovard.edge.health import Health
from samovard.edge.identity import (
    ADMIN_SCOPES,
    SESSION_SCOPES,
    ApiKeys,
    Identity,
    mac,
)
from samovard.edge.pages import Pages
from samovard.edge.pool_service import PoolService
from samovard.edge.session_service import SessionService
from samovard.edge.status import CODES, DOMAIN
from samovard.store.keys import KeyRecord
from samovard.telemetry.recorder import NULL_RECORDER

PEPPER = b"pepper" * 6
#: What a stock client takes of a status without a doubt; beyond it the reason is lost.
MAX_METADATA = 8 << 10
SCOPES = {
    "acme": SESSION_SCOPES,
    "blue": frozenset({"session.read"}),
    "ops": ADMIN_SCOPES,
}


def key(tenant: str) -> str:
    """Return the key of a tenant."""
    return f"samovar_{tenant:x<12}_{tenant:y<43}"


def record(tenant: str) -> KeyRecord:
    """Return what is stored of it."""
    id, secret = key(tenant).split("_")[1:]
    return KeyRecord(id, tenant, SCOPES[tenant], mac(PEPPER, secret), 0.0, None)


class Shelf:
    """Keys in memory."""

    _records = {found.id: found for found in map(record, SCOPES)}

    async def get(self, id: str) -> KeyRecord | None:
        """Return a key by its id."""
        return self._records.get(id)


class Request(Struct, frozen=True):
    """One call as it comes. `operator`: on the operator's listener."""

    operator: bool
    method: str
    metadata: list[tuple[str, str]]
    message: bytes

    @property
    def tenant(self) -> str:
        """The tenant whose key it shows, empty if it shows none, or more than one credential."""
        shown = [value for name, value in self.metadata if name == "authorization"]
        found = [tenant for tenant in SCOPES if shown == [f"Bearer {key(tenant)}"]]
        return found[0] if found else ""


class Context:
    """What grpcio hands to a handler, of one call."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._read: Any = None
        self._code: grpc.StatusCode | None = None
        self.deserialized = False
        self.details = ""
        self.trailing: Sequence[tuple[str, str | bytes]] = ()

    def reads(self, deserialize: Any) -> "Context":
        """Return itself, with what a message is read by."""
        self._read = deserialize
        return self

    async def read(self) -> Any:
        """Return the message, then that there is none."""
        if self.deserialized:
            return grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs
        self.deserialized = True
        return self._read(self._request.message)

    async def write(self, response: Any) -> None:
        """Take a response."""
        assert response.SerializeToString() is not None

    async def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        """Take the status."""
        self._code, self.details, self.trailing = code, details, trailing_metadata
        raise grpc.aio.AbortError

    def code(self) -> grpc.StatusCode | None:
        """Return the status."""
        return self._code

    def invocation_metadata(self) -> Sequence[tuple[str, str]]:
        """Return what came with the call."""
        return tuple(self._request.metadata)

    def auth_context(self) -> dict[str, Any]:
        """Return what TLS found: nothing."""
        return {}

    def peer(self) -> str:
        """Return where the call comes from."""
        return "ipv4:192.0.2.7:40000"

    def time_remaining(self) -> None:
        """Return the time that is left."""

    def cancelled(self) -> bool:
        """Return whether the caller has gone."""
        return False

    done = cancelled


class Handlers:
    """The handlers of methods, registered as with a server."""

    def __init__(self) -> None:
        self._generic: list[Any] = []

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Take the handlers of a service."""
        self._generic += handlers

    def add_registered_method_handlers(self, *_: object) -> None:
        """Take the same again, for servers that look them up by name."""

    async def find(self, details: Any) -> Any:
        """Return the handler of a method, or None."""
        found = (generic.service(details) for generic in self._generic)
        return next((handler for handler in found if handler is not None), None)


class Edge:
    """Both listeners, without sockets, on an event loop of their own."""

    def __init__(self) -> None:
        self._core = Core()
        keys = ApiKeys(Shelf(), PEPPER, lambda: 0.0, lambda: 0.0)
        callers, operators = Handlers(), Handlers()
        used = NothingUsed()
        # Any: what stands for the core, and for grpcio's server, has their methods only.
        servicers: Any = (
            SessionService(self._core, used, PAGES),  # type: ignore[arg-type]
            PoolService(Operated(), Controlled(), used, PAGES),  # type: ignore[arg-type]
        )
        registers: Any = callers, operators
        session_pb2_grpc.add_SessionServicer_to_server(servicers[0], registers[0])
        pool_pb2_grpc.add_PoolServicer_to_server(servicers[1], registers[1])
        health_pb2_grpc.add_HealthServicer_to_server(Health(), registers[0])
        # With one call of a tenant at once, what a call leaves behind is met by the next.
        tables = gate.public_table(reflects=False), gate.operator_table()
        self._ways = [
            (gate.Gate(Identity([keys]), table, revocation(), each=1), handlers)
            for table, handlers in zip(tables, (callers, operators), strict=True)
        ]

    async def call(self, request: Request) -> tuple[Context, bool]:
        """Return the context of a call at its end, and whether there is its method."""
        self._core.tenant = request.tenant
        way, handlers = self._ways[request.operator]
        observe = CallTelemetry(NULL_RECORDER, CLOCKS, way.methods)
        details = SimpleNamespace(
            method=request.method, invocation_metadata=tuple(request.metadata)
        )
        context = Context(request)

        async def gated(found: Any) -> Any:
            return await way.intercept_service(handlers.find, found)

        handler = await observe.intercept_service(gated, details)  # type: ignore[arg-type]
        if handler is None:
            return context, False
        try:
            behavior = handler.stream_stream
            await behavior(None, context.reads(handler.request_deserializer))
        except grpc.aio.AbortError:
            pass
        return context, True


PAGES = Pages(b"key" * 11, lambda: 0.0)


@contextmanager
def checking() -> Iterator[Check]:
    """Set up both listeners."""
    with asyncio.Runner() as runner:
        loop, edge = runner.get_loop(), Edge()

        def check(request: Request) -> None:
            ended(request, *loop.run_until_complete(edge.call(request)))

        yield check


def ended(request: Request, context: Context, exists: bool) -> None:
    """Look at how a call ended."""
    code = context.code()
    health = request.method in gate.HEALTH
    if not request.tenant and not (health and request.operator):
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert not context.deserialized
    # Health has the statuses of its own protocol, without details.
    if exists and code is not None and not (health and context.deserialized):
        refused(context, code)


def refused(context: Context, code: grpc.StatusCode) -> None:
    """Look at the status of a call that failed."""
    trailing: dict[str, Any] = dict(context.trailing)
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    (packed,) = (detail for detail in status.details if detail.Is(info.DESCRIPTOR))
    packed.Unpack(info)
    assert (info.domain, CODES[info.reason]) == (DOMAIN, code)
    assert info.reason not in ("INTERNAL", "QUOTA_EXCEEDED")
    # As gRPC writes it: percent-encoded, base64, and 32 bytes for each field.
    written = len(quote(context.details)) + 32
    for name, value in trailing.items():
        size = -(-4 * len(value) // 3) if isinstance(value, bytes) else len(value)
        written += len(name) + size + 32
    assert written <= MAX_METADATA, f"a status of {written} bytes"


def _services() -> dict[str, type[Any]]:
    kinds: dict[str, type[Any]] = {}
    for file in (session_pb2, pool_pb2, health_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                kinds[f"/{service.full_name}/{method.name}"] = getattr(file, method.input_type.name)
    del kinds["/grpc.health.v1.Health/Watch"]  # never ends by itself
    return kinds


KINDS = _services()
HINTS = {
    "session_id": ("default", "a.b-c_d"),
    "turn_id": (TURN,),
    "profile": ("default",),
    "model": ("opus", "claude/x:1"),
    "tenant_id": ("acme",),
    "permission_id": ("p",),
    "media_type": (*validate.IMAGES, *validate.DOCUMENTS),
    "text": ("Hello",),
    "updated_input_json": ('{"a":1}', '{"a":{"a":[1,2.5e300,"\\u2028"]}}'),
    "page_token": (
        "",
        PAGES.token("acme", "ListSessions", "0", (0.0, "a")),
        PAGES.token("", "ListPools", "", (0.0, "acme/default")),
        PAGES.token("", "ListProcesses", "", (0.0, "p")),
    ),
}
NAMES = (
    "authorization",
    "grpc-previous-rpc-attempts",
    "traceparent",
    "tracestate",
    "x-tenant-id",
    "session-id",
    ":authority",
    "origin",
    "user-agent",
)
CREDENTIALS = [[("authorization", f"Bearer {key(tenant)}")] for tenant in SCOPES]


def draw(draw: Random) -> Request:
    """Draw a call: mostly of a caller who may make it, and with a message of its method."""
    method = draw.choice(list(KINDS))
    operator = method.startswith("/samovar.v1.Pool/")
    kind = KINDS[method]
    data = kind(**fields(draw, kind.DESCRIPTOR, HINTS)).SerializeToString()
    way = draw.random()
    if way < 0.3:
        data = edited(draw, data)
    elif way < 0.35:
        data = draw.randbytes(draw.randrange(64))
    elif way < 0.4:
        operator, method = draw.random() < 0.5, draw.choice((text(draw), *KINDS))
    return Request(operator, method, _metadata(draw, operator=operator), data)


def _metadata(draw: Random, *, operator: bool) -> list[tuple[str, str]]:
    found = [*CREDENTIALS[2 if operator else 0]]
    way = draw.random()
    if way < 0.2:
        found = [*draw.choice(CREDENTIALS)] if way < 0.1 else []
    if draw.random() < 0.3:
        found += [(draw.choice(NAMES), text(draw)) for _ in range(draw.randint(1, 2))]
    return found


TARGET = Target("requests", Request, draw, checking)
