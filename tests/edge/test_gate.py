"""The one way in, over a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from structlog.testing import capture_logs
from support.revocation_fakes import revocation

from samovar.v1 import pool_pb2, session_pb2_grpc
from samovar.v1 import session_pb2 as pb
from samovard.core.errors import CredentialInvalid
from samovard.edge import gate
from samovard.edge.identity import Caller, Evidence, Identity, current_caller
from samovard.edge.pool_service import PoolService
from samovard.edge.session_service import SessionService

READ = frozenset({"session.read"})

UNHEARD = asyncio.Event()  # a handler could not write to its caller


class Names:
    """Takes the tenant's name as its credential."""

    needs_peer = False

    def claims(self, evidence: Evidence) -> bool:
        return True

    async def authenticate(self, evidence: Evidence) -> Caller:
        values = evidence.values("authorization")
        if values not in (["acme"], ["blue"]):
            raise CredentialInvalid
        return Caller(values[0], values[0], READ, "test")


class Service(session_pb2_grpc.SessionServicer):
    async def GetSession(self, request: pb.GetSessionRequest, context: Any) -> Any:
        if request.session_id == "broken":
            raise RuntimeError("a secret detail")
        if request.session_id == "unheard":
            UNHEARD.set()
            raise grpc.aio.InternalError("Failed grpc_call_start_batch")
        return pb.GetSessionResponse(session=pb.SessionInfo(session_id=current_caller().tenant))


Story = Callable[[Any, grpc.aio.Channel], Awaitable[None]]


def told(story: Story) -> None:
    async def run() -> None:
        interceptors = [
            gate.Guard(),
            gate.Gate(Identity([Names()]), gate.public_table(reflects=False), revocation()),
        ]
        server = grpc.aio.server(interceptors=interceptors)
        service: Any = object.__new__(type("S", (Service,), {"__abstractmethods__": frozenset()}))
        session_pb2_grpc.add_SessionServicer_to_server(service, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                await story(session_pb2_grpc.SessionStub(channel), channel)
        finally:
            await server.stop(None)

    asyncio.run(run())


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


def as_(tenant: str) -> dict[str, Any]:
    return {"metadata": (("authorization", tenant),)}


def test_the_caller_reaches_the_handler() -> None:
    """Each call is served as its own credential's tenant."""

    async def story(stub: Any, channel: grpc.aio.Channel) -> None:
        request = pb.GetSessionRequest()
        answers = await asyncio.gather(
            *(stub.GetSession(request, **as_(t)) for t in ("acme", "blue"))
        )
        assert [answer.session.session_id for answer in answers] == ["acme", "blue"]

    told(story)


def test_without_credential_nothing_is_learned() -> None:
    """A method that exists and one that does not look the same to a stranger."""

    async def story(stub: Any, channel: grpc.aio.Channel) -> None:
        known = await failure(stub.GetSession(pb.GetSessionRequest()))
        method = channel.unary_unary("/samovar.v1.Session/Nothing", None, None)
        unknown = await failure(method(b""))
        assert known.code() is unknown.code() is grpc.StatusCode.UNAUTHENTICATED
        assert known.details() == unknown.details()
        assert tuple(known.trailing_metadata()) == tuple(unknown.trailing_metadata())
        mine = await failure(method(b"", **as_("acme")))
        assert mine.code() is grpc.StatusCode.UNIMPLEMENTED

    told(story)


def test_a_scope_is_needed() -> None:
    """Who may read may not close."""

    async def story(stub: Any, channel: grpc.aio.Channel) -> None:
        error = await failure(stub.CloseSession(pb.CloseSessionRequest(), **as_("acme")))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED

    told(story)


def test_a_denied_message_is_not_read() -> None:
    """A stranger's message is refused whatever it holds: it is never deserialised."""

    async def story(stub: Any, channel: grpc.aio.Channel) -> None:
        method = channel.unary_unary("/samovar.v1.Session/GetSession", None, None)
        error = await failure(method(b"\xff" * 3_000_000))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED

    told(story)


FORMS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class Forms(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # in its stubs only
    """A method of each kind. `read` is what was deserialised for any of them."""

    def __init__(self) -> None:
        self.read: list[bytes] = []

    def service(self, details: Any) -> Any:
        form = details.method.rpartition("/")[2]
        if form not in FORMS:
            return None
        make = getattr(grpc, f"{form}_rpc_method_handler")
        behavior = self._writes if form.endswith("stream") else self._answers
        # Reflection generates its answers.
        behavior = self._generates if form == "stream_stream" else behavior
        return make(behavior, self._note, None)

    def _note(self, data: bytes) -> bytes:
        self.read.append(data)
        return data

    async def _answers(self, request: Any, context: Any) -> bytes:
        received = request if isinstance(request, bytes) else await anext(aiter(request))
        if received == b"broken":
            raise RuntimeError("a secret detail")
        return current_caller().tenant.encode()

    async def _writes(self, request: Any, context: Any) -> None:
        await context.write(await self._answers(request, context))

    async def _generates(self, request: Any, context: Any) -> Any:
        yield await self._answers(request, context)


@pytest.mark.parametrize("needs_peer", [False, True])
def test_no_kind_of_call_is_served_or_read_before_its_caller_is_known(needs_peer: bool) -> None:
    """Each kind of stream is refused unread, is answered to a caller, and tells no exception."""

    async def story() -> None:
        forms, names = Forms(), Names()
        names.needs_peer = needs_peer
        table = {f"/t.T/{form}": "session.read" for form in FORMS}
        gates = [gate.Guard(), gate.Gate(Identity([names]), table, revocation())]
        server = grpc.aio.server(interceptors=gates, handlers=[forms])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                for form in FORMS:
                    code, details, _ = await outcome(channel, form, b"x", ())
                    assert code is grpc.StatusCode.UNAUTHENTICATED
                    assert forms.read == [], form
                    caller = as_("acme")["metadata"]
                    assert await outcome(channel, form, b"x", caller) == (
                        grpc.StatusCode.OK,
                        "",
                        b"acme",
                    )
                    code, details, _ = await outcome(channel, form, b"broken", caller)
                    assert code is grpc.StatusCode.INTERNAL
                    assert "secret" not in details
                    assert forms.read == [b"x", b"broken"], form
                    forms.read.clear()
                unknown = await outcome(channel, "Nothing", b"x", (), form="unary_unary")
                assert unknown[0] is grpc.StatusCode.UNAUTHENTICATED
                unknown = await outcome(channel, "Nothing", b"x", caller, form="unary_unary")
                assert unknown[0] is grpc.StatusCode.UNIMPLEMENTED
        finally:
            await server.stop(None)

    asyncio.run(story())


async def outcome(
    channel: grpc.aio.Channel, method: str, message: bytes, metadata: Any, form: str = ""
) -> tuple[grpc.StatusCode, str, bytes]:
    """Return how a call of one message ended, and the first message of its answer.

    A client that still writes when the refusal comes may end its call by itself, as INTERNAL:
    that says nothing of the server, which is asked again.
    """
    form = form or method
    call: Any = getattr(channel, form)(f"/t.T/{method}", None, None)(
        iter([message]) if form.startswith("stream") else message, metadata=metadata
    )
    try:
        found = b"".join([one async for one in call]) if form.endswith("stream") else await call
    except grpc.aio.AioRpcError as error:
        if (error.details() or "").startswith("Failed"):  # "execute_batch", by grpc.aio's client
            return await outcome(channel, method, message, metadata, form)
        return error.code(), error.details() or "", b""
    return await call.code(), await call.details(), found


def test_an_exceptions_text_stays_inside() -> None:
    """What nobody caught becomes a constant text with an id to report."""

    async def story(stub: Any, channel: grpc.aio.Channel) -> None:
        request = pb.GetSessionRequest(session_id="broken")
        error = await failure(stub.GetSession(request, **as_("acme")))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert "secret" not in str(error)
        trailing: Any = error.trailing_metadata()
        status = status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])
        assert b"traceId" in status.SerializeToString()

    told(story)


def test_every_method_of_the_contract_has_one_row() -> None:
    """The tables of scopes have the services' methods, all and no others, each on one listener."""
    methods = pb.DESCRIPTOR.services_by_name["Session"].methods_by_name
    assert {f"/samovar.v1.Session/{name}" for name in methods} == set(gate.SESSION)
    assert set(gate.SESSION.values()) == {"session.send", "session.read", "session.control"}
    operators = pool_pb2.DESCRIPTOR.services_by_name["Pool"].methods_by_name
    assert {f"/samovar.v1.Pool/{name}" for name in operators} == set(gate.POOL)
    assert set(gate.POOL.values()) == {"admin"}
    assert not gate.POOL.keys() & gate.public_table(reflects=True).keys()


def test_every_method_of_the_contract_is_served() -> None:
    """None is left to the stub, which answers that it is not implemented."""
    for services, name, served in (
        (pb.DESCRIPTOR, "Session", SessionService),
        (pool_pb2.DESCRIPTOR, "Pool", PoolService),
    ):
        methods = services.services_by_name[name].methods_by_name
        assert set(methods) <= set(vars(served)), name


def test_a_caller_who_cannot_be_told_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    """gRPC fails to write to one that has gone; the call ends as a cancelled one does."""

    async def story(stub: Any, channel: grpc.aio.Channel) -> None:
        call = stub.GetSession(pb.GetSessionRequest(session_id="unheard"), **as_("acme"))
        connected = asyncio.ensure_future(call)
        await UNHEARD.wait()
        connected.cancel()

    with capture_logs() as lines:
        told(story)
    assert not lines
    # By name: asyncio tells here of closed loops of earlier tests, which gRPC still wakes.
    assert not [record for record in caplog.records if record.name.startswith("grpc")]


@pytest.mark.parametrize("needs_peer", [False, True])
def test_a_caller_does_not_count_among_strangers_whatever_it_shows(needs_peer: bool) -> None:
    """Not one that a certificate names, either, which is known in the handler only."""

    async def story() -> None:
        forms, names = Forms(), Names()
        names.needs_peer = needs_peer
        table, none = {"/t.T/unary_unary": gate.OPEN}, gate.AtOnce(0)
        way_in = gate.Gate(Identity([names]), table, revocation(), {"/t.T/unary_unary": none})
        server = grpc.aio.server(interceptors=[gate.Guard(), way_in], handlers=[forms])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                ours = as_("acme")["metadata"]
                code, _, answer = await outcome(channel, "unary_unary", b"x", ours)
                assert (code, answer) == (grpc.StatusCode.OK, b"acme")
                code, _, _ = await outcome(channel, "unary_unary", b"x", ())
                assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        finally:
            await server.stop(None)

    asyncio.run(story())
