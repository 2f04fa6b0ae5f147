"""The true status of each call, whatever way it ends; on a real server and a real client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from support.service import until

from samovard.core.errors import CredentialInvalid, NoProcess, RequestInvalid, TurnLost
from samovard.core.sessions.conversation import Clocks
from samovard.edge import call_telemetry, gate
from samovard.edge.call_telemetry import CallTelemetry
from samovard.edge.status import Answering
from samovard.telemetry.facts import CallFacts
from samovard.telemetry.recorder import NullRecorder

RETRY = {
    "methodConfig": [
        {
            "name": [{"service": "t.T", "method": "One"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.01s",
                "maxBackoff": "0.1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
METHODS = ("/t.T/Stream", "/t.T/One")


class Witness(NullRecorder):
    """Keeps the calls that have ended."""

    def __init__(self) -> None:
        self.calls: list[CallFacts] = []
        self.carriers: list[dict[str, str]] = []

    def call_began(self, call: CallFacts, carrier: Any) -> None:
        self.carriers.append(dict(carrier))

    def call_ended(self, call: CallFacts) -> None:
        self.calls.append(call)


async def stream(request: bytes, context: Any) -> None:
    """Does what the request says, behind one message."""
    async with Answering(context):
        await context.write(b"first")
        match request.decode():
            case "stranger":
                raise CredentialInvalid
            case "busy":
                raise NoProcess("full", cause="saturated", retry_after=1.0)
            case "invalid":
                raise RequestInvalid(("content", "is empty"))
            case "lost":
                raise TurnLost("process-died", {})
            case "raise":
                raise ValueError
            case "abort":
                await context.abort(grpc.StatusCode.ABORTED, "no")
            case "code":
                context.set_code(grpc.StatusCode.NOT_FOUND)
            case "wait":
                await asyncio.Event().wait()
            case "write":
                while True:
                    await context.write(b"x" * 100_000)
                    await asyncio.sleep(0)


async def one(request: bytes, context: Any) -> bytes:
    if request == b"raise":
        raise ValueError
    again = any(key == "grpc-previous-rpc-attempts" for key, _ in context.invocation_metadata())
    if request == b"retry" and not again:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
    return b"four"


@asynccontextmanager
async def watched(
    *, guarded: bool = True, callers: bool = False, user_agent: str = "test"
) -> AsyncIterator[tuple[Witness, Any]]:
    witness = Witness()
    witness.callers = callers
    observe = CallTelemetry(witness, Clocks(time.time, time.monotonic), METHODS)
    server = grpc.aio.server(interceptors=[observe])
    stands = gate.guarded if guarded else lambda behavior: behavior
    handlers = {
        "Stream": grpc.unary_stream_rpc_method_handler(stands(stream), bytes, bytes),
        "One": grpc.unary_unary_rpc_method_handler(stands(one), bytes, bytes),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    options = (
        ("grpc.service_config", json.dumps(RETRY)),
        ("grpc.primary_user_agent", user_agent),
    )
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
        yield witness, channel
    await server.stop(None)


async def ended(witness: Witness) -> CallFacts:
    await until(lambda: witness.calls)
    (call,) = witness.calls
    return call


@pytest.mark.parametrize(
    ("request_", "status", "reason", "cause"),
    [
        ("well", "OK", "", ""),
        ("busy", "UNAVAILABLE", "NO_PROCESS", "saturated"),
        ("invalid", "INVALID_ARGUMENT", "REQUEST_INVALID", ""),
        ("lost", "ABORTED", "TURN_LOST", "process-died"),
        ("raise", "INTERNAL", "INTERNAL", "defect"),
        ("abort", "ABORTED", "", ""),
        ("code", "NOT_FOUND", "", ""),
    ],
)
def test_a_stream_ends_with_what_its_caller_is_told(
    request_: str, status: str, reason: str, cause: str
) -> None:
    """The status, reason and cause of a call are those that the caller got."""

    async def story() -> None:
        async with watched() as (witness, channel):
            told = "OK"
            try:
                async for _ in channel.unary_stream("/t.T/Stream")(request_.encode()):
                    pass
            except grpc.aio.AioRpcError as error:
                told = error.code().name
            call = await ended(witness)
            assert (call.status, call.reason, call.cause) == (told, reason, cause)
            assert told == status
            assert (call.method, call.responses, call.bytes) == ("t.T/Stream", 1, 5)

    asyncio.run(story())


@pytest.mark.parametrize("request_", ["wait", "write"])
def test_a_caller_who_leaves_is_cancelled(request_: str) -> None:
    """Whether the handler waits or writes when the caller leaves, the call was cancelled."""

    async def story() -> None:
        async with watched() as (witness, channel):
            call = channel.unary_stream("/t.T/Stream")(request_.encode())
            await call.read()
            call.cancel()
            assert (await ended(witness)).status == "CANCELLED"

    asyncio.run(story())


@pytest.mark.parametrize("request_", ["wait", "write"])
def test_a_deadline_that_passes_is_exceeded(request_: str) -> None:
    """Whether the handler waits or writes when the time is over, the deadline was exceeded."""

    async def story() -> None:
        async with watched() as (witness, channel):
            with pytest.raises(grpc.aio.AioRpcError):
                async for _ in channel.unary_stream("/t.T/Stream")(request_.encode(), timeout=0.2):
                    pass
            assert (await ended(witness)).status == "DEADLINE_EXCEEDED"

    asyncio.run(story())


def test_an_exception_that_nobody_caught_is_unknown() -> None:
    """Without a guard the caller gets UNKNOWN, and so it is told."""

    async def story() -> None:
        async with watched(guarded=False) as (witness, channel):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/t.T/One")(b"raise")
            assert caught.value.code() is grpc.StatusCode.UNKNOWN
            assert (await ended(witness)).status == "UNKNOWN"

    asyncio.run(story())


@pytest.mark.parametrize("request_", ["well", "stranger"])
@pytest.mark.parametrize("callers", [True, False])
def test_who_called_is_known_only_where_it_is_asked_for(request_: str, callers: bool) -> None:
    """Its user agent, cut, and its address; of one without a valid credential, too."""

    async def story() -> None:
        user_agent = f"billing/1.2 {'x' * 300}"
        async with watched(callers=callers, user_agent=user_agent) as (witness, channel):
            with suppress(grpc.aio.AioRpcError):
                async for _ in channel.unary_stream("/t.T/Stream")(request_.encode()):
                    pass
            call = await ended(witness)
            assert call.peer == ("127.0.0.1" if callers else "")
            assert call.user_agent[:12] == ("billing/1.2 " if callers else "")
            assert len(call.user_agent) == (256 if callers else 0)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:10.1.2.80:41005", "10.1.2.80"),
        ("ipv6:%5B2001:db8::1%5D:41005", "2001:db8::1"),
        ("ipv6:[::1]:41005", "::1"),
        ("unix:/run/samovar.sock", "/run/samovar.sock"),
        ("unix:", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_peer_is_read_from_its_name(peer: str, address: str) -> None:
    """Without its port, which is another for each connection."""
    assert call_telemetry.address_of(peer) == address


def test_a_single_response_is_counted() -> None:
    """A call with one response has one, of its size."""

    async def story() -> None:
        async with watched() as (witness, channel):
            assert await channel.unary_unary("/t.T/One")(b"") == b"four"
            call = await ended(witness)
            assert (call.status, call.responses, call.bytes) == ("OK", 1, 4)

    asyncio.run(story())


def test_a_method_that_does_not_exist_has_no_name_of_its_own() -> None:
    """A caller cannot make up labels."""

    async def story() -> None:
        async with watched() as (witness, channel):
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/t.T/MadeUp")(b"")
            call = await ended(witness)
            assert (call.method, call.status) == ("_OTHER", "UNIMPLEMENTED")
            assert call.original == "t.T/MadeUp"

    asyncio.run(story())


def test_of_the_metadata_only_the_trace_is_read() -> None:
    """`traceparent` and `tracestate` are passed on, and nothing else."""

    async def story() -> None:
        async with watched() as (witness, channel):
            metadata = (
                ("traceparent", "00-a-b-01"),
                ("tracestate", "v=1"),
                ("baggage", "secret=1"),
                ("binary-bin", b"\x00\xff"),
            )
            await channel.unary_unary("/t.T/One")(b"", metadata=metadata)
            assert witness.carriers == [{"traceparent": "00-a-b-01", "tracestate": "v=1"}]

    asyncio.run(story())


def test_a_retry_of_grpc_itself_is_counted() -> None:
    """The second attempt of a call says so; each is a call."""

    async def story() -> None:
        async with watched() as (witness, channel):
            assert await channel.unary_unary("/t.T/One")(b"retry") == b"four"
            await until(lambda: len(witness.calls) == 2)
            tried = [(call.status, call.attempt) for call in witness.calls]
            assert tried == [("UNAVAILABLE", 0), ("OK", 1)]

    asyncio.run(story())


@pytest.mark.parametrize(("told", "attempt"), [("2", 2), ("9" * 5000, 0), ("\u00b2", 0), ("-1", 0)])
def test_a_number_of_attempts_that_is_none_counts_as_the_first(told: str, attempt: int) -> None:
    """Whatever stands there, the call is made."""

    async def nothing(details: Any) -> None:
        return None

    async def story() -> None:
        witness = Witness()
        details: Any = SimpleNamespace(
            method="/t.T/One", invocation_metadata=((call_telemetry.ATTEMPTS, told),)
        )
        watching = CallTelemetry(witness, Clocks(time.time, time.monotonic), METHODS)
        assert await watching.intercept_service(nothing, details) is None
        await asyncio.sleep(0)
        assert [call.attempt for call in witness.calls] == [attempt]

    asyncio.run(story())


def test_calls_without_a_credential_share_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is told at once, the rest once an interval with their number; each is counted."""
    monkeypatch.setattr(call_telemetry, "REFUSED_EVERY", 1.0)

    async def story() -> None:
        async with watched() as (witness, channel):
            call = channel.unary_stream("/t.T/Stream")
            for _ in range(50):
                with pytest.raises(grpc.aio.AioRpcError):
                    async for _ in call(b"stranger"):
                        pass
            await until(lambda: sum(line["count"] for line in lines) == 50)
            assert len(witness.calls) == 50

    with capture_logs() as lines:
        asyncio.run(story())
    assert {line["event"] for line in lines} == {"credential.refused"}
    assert lines[0]["count"] == 1


def test_a_silent_interval_has_no_line() -> None:
    """After an interval without a refused call the next one is told at once again."""

    async def story() -> None:
        loop = asyncio.get_running_loop()
        refusals = call_telemetry.Refusals()
        for expected in (1, 2):
            refusals.add()
            assert [line["count"] for line in lines] == [1] * expected
            assert refusals._timer is not None
            refusals._timer.cancel()
            loop.call_soon(refusals._tell)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert refusals._timer is None

    with capture_logs() as lines:
        asyncio.run(story())
