"""The one way in, over a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from structlog.testing import capture_logs

from samovar.v1 import pool_pb2, session_pb2_grpc
from samovar.v1 import session_pb2 as pb
from samovard.core.errors import CredentialInvalid
from samovard.edge import gate
from samovard.edge.identity import Caller, Evidence, Identity, current_caller

READ = frozenset({"session.read"})

UNHEARD = asyncio.Event()  # a handler could not write to its caller


class Names:
    """Takes the tenant's name as its credential."""

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
            gate.Gate(Identity([Names()]), gate.public_table(reflects=False)),
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
    assert not caplog.records
