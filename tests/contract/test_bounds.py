"""What callers can take from each other: connections without a call, messages without an end."""

import asyncio
import contextlib
import resource
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake, verbs
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import http2
from support.service import key_for, prepare, serving
from support.timeouts import BOUND

import samovar
from samovar.v1 import pool_pb2, pool_pb2_grpc
from samovar.v1 import session_pb2 as pb
from samovard import app
from samovard.edge import receiving, server
from samovard.edge.permits import EACH
from samovard.settings import Settings
from samovard.settings.checks import HEADROOM

IDLE = "grpc.max_connection_idle_ms"
CANCEL = b"\0\0\0\x08"  # of a stream, by HTTP/2


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Idle connections end in a second instead of sixty."""
    monkeypatch.setattr(server, "OPTIONS", tuple((dict(server.OPTIONS) | {IDLE: 1000}).items()))


def ends(client: http2.Http2) -> bool:
    """Wait until a connection that makes no call is sent away."""
    return any(frame.kind == http2.GOAWAY for frame in client.frames(BOUND))


@pytest.mark.usefixtures("idle")
def test_a_stock_client_does_not_notice_that_its_connection_idled(directory: Path) -> None:
    """Its next call is answered as the one before, on another connection; also grpc's own."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            port = int(run.address.rpartition(":")[2])
            with samovar.Client(run.address) as blocking:
                assert (await asyncio.to_thread(blocking.ask, "Say x", session="b")).text == "x"
                assert (await run.client.ask("Say x", session="a")).text == "x"
                # One that is younger than theirs ends after theirs have.
                with http2.Http2(port) as younger:
                    assert await asyncio.to_thread(ends, younger)
                first = await run.client.ask("Say y", session="a")
                assert (first.text, first.started.start_mode.name) == ("y", "WARM")
                assert (await asyncio.to_thread(blocking.ask, "Say y", session="b")).text == "y"

    asyncio.run(story())


async def reached(address: str) -> bool:
    """True if a new connection takes a call."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(address, options) as channel:
        request = health_pb2.HealthCheckRequest()
        with contextlib.suppress(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(channel).Check(request, timeout=BOUND)
            return True
        return False


@pytest.mark.usefixtures("idle")
def test_connections_without_a_call_keep_nobody_out_for_long(directory: Path) -> None:
    """With all connections taken callers are refused, while probes and the operator are
    answered; once these make no call any more, they end, and callers are served."""

    async def story() -> None:
        bound = {"max_connections": 3, "listen": "127.0.0.1:0"}
        async with contextlib.AsyncExitStack() as stack:
            run = await stack.enter_async_context(serving(directory, fake=True, server=bound))
            port = int(run.address.rpartition(":")[2])
            taken = [stack.enter_context(http2.Http2(port)) for _ in range(3)]
            calls = await asyncio.gather(*(asyncio.to_thread(watching, one) for one in taken))
            assert not await reached(run.address)
            assert await reached(run.service.probes)
            assert await pools(f"unix:{directory / 'operator.sock'}")
            for one, call in zip(taken, calls, strict=True):
                one.send(http2.RESET, 0, call, CANCEL)
            assert all(await asyncio.gather(*(asyncio.to_thread(ends, one) for one in taken)))
            async with asyncio.timeout(BOUND):
                while not await reached(run.address):
                    pass

    asyncio.run(story())


def watching(client: http2.Http2) -> int:
    """Watch health on a connection until the first status. Return the stream."""
    stream = client.call("/grpc.health.v1.Health/Watch")
    assert any(f.kind == http2.DATA and f.stream == stream for f in client.frames(BOUND))
    return stream


async def pools(address: str) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = pool_pb2_grpc.PoolStub(channel)
        await stub.ListPools(pool_pb2.ListPoolsRequest(), timeout=BOUND)
        return True


@pytest.mark.parametrize(("limit", "given", "made"), [(4096, {}, 1000), (1000, {}, 500)])
def test_connections_fit_the_descriptors(
    limit: int, given: dict[str, int], made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default half of the open files, at most 1000."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    assert Settings.model_validate({"server": given}).server.connections == made


def test_more_connections_than_descriptors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a sentence that names the setting and the limit."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1024))
    assert Settings.model_validate({"server": {"max_connections": 896}})
    with pytest.raises(ValueError, match=r"server\.max_connections: .* 1024 \(ulimit -n\)"):
        Settings.model_validate({"server": {"max_connections": 897}})


SEND = "/samovar.v1.Session/Send"
HEAD = b"\0" + struct.pack(">I", 8 << 20)  # of a message of 8 MiB


def test_a_message_is_received_with_a_permit_only(directory: Path) -> None:
    """Of a tenant's unfinished messages four are read, the next when one of these has gone; of
    the others no more than 64 KiB may be sent."""

    def story(port: int) -> None:
        with http2.Http2(port) as client:
            frames = client.frames(BOUND)
            granted = next(f.payload for f in frames if f.kind == http2.SETTINGS)
            windows = dict(struct.iter_unpack(">HI", granted))
            assert windows.get(http2.INITIAL_WINDOW_SIZE, 65535) <= 65535
            waiting = {client.begin(SEND) for _ in range(EACH + 1)}
            for stream in waiting:
                client.send(http2.DATA, 0, stream, HEAD)
            read: list[int] = []
            for frame in frames:
                if frame.kind == http2.WINDOW_UPDATE and frame.stream in waiting:
                    waiting.remove(frame.stream)
                    read.append(frame.stream)
                    if len(read) == EACH:
                        client.send(http2.RESET, 0, read[0], CANCEL)
                if not waiting:
                    break
            assert len(read) == EACH + 1

    async def run() -> None:
        async with serving(directory, fake=True) as running:
            port = int(running.address.rpartition(":")[2])
            await asyncio.to_thread(story, port)

    asyncio.run(run())


def test_a_call_that_gets_no_permit_is_told_so(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the reason and when to try again."""
    monkeypatch.setattr(receiving, "PATIENCE", 0.2)

    async def story() -> None:
        async with (
            serving(directory, fake=True) as run,
            grpc.aio.insecure_channel(run.address) as channel,
        ):
            bare: Any = channel
            held = [bare.stream_stream(SEND)() for _ in range(EACH)]
            with pytest.raises(samovar.QuotaExceeded) as error:
                async with asyncio.timeout(BOUND):
                    while True:
                        with contextlib.suppress(samovar.SessionNotFound):
                            await run.client.get_session("none")
            assert error.value.cause == "messages"
            assert error.value.retry_delay == 1.0
            for call in held:
                call.cancel()

    asyncio.run(story())


#: One slot, one waiting place and HEADROOM.
CALLS = 2 + HEADROOM
SMALL: dict[str, Any] = {
    "pool": {"slots": 1, "queue_limit": 1},
    "auth": {"methods": ["api_key"]},
}


async def first_refused(calls: Sequence[Any]) -> str:
    """Wait until one of some calls that wait ends: refused, and told when to try again."""
    codes = {asyncio.create_task(call.code()): call for call in calls}
    done, waiting = await asyncio.wait(codes, timeout=BOUND, return_when="FIRST_COMPLETED")
    refused = codes[done.pop()]
    for task in waiting:
        task.cancel()
    assert await refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = dict(await refused.trailing_metadata())
    assert b"QUOTA_EXCEEDED" in told["grpc-status-details-bin"]
    assert told["grpc-retry-pushback-ms"] == "1000"
    return str(await refused.details())


def held(channel: Any, key: str, count: int) -> list[Any]:
    """Begin calls of a tenant that send no message."""
    shown = (("authorization", f"Bearer {key}"),)
    return [channel.stream_stream(SEND)(metadata=shown) for _ in range(count)]


def test_a_tenants_calls_leave_room_for_others(directory: Path) -> None:
    """Beyond its bound a tenant is told why and when to try again; another one is served."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        acme, blue = [await key_for(directory, tenant) for tenant in ("acme", "blue")]
        async with (
            serving(directory, binary=binary, **SMALL) as run,
            grpc.aio.insecure_channel(run.address) as channel,
            samovar.AsyncClient(run.address, api_key=blue) as other,
        ):
            calls = held(channel, acme, CALLS + 1)
            assert await first_refused(calls) == "too many calls of the tenant at once"
            assert (await other.ask("Say x", session="b")).text == "x"
            for call in calls:
                call.cancel()

    asyncio.run(story())


def test_the_calls_of_all_tenants_are_refused_by_the_service_and_not_by_grpc(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tenants that are each within their bound are told why, too, and probes are answered."""
    monkeypatch.setattr(app, "MAX_WATCHERS", 1)

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        acme, blue = [await key_for(directory, tenant) for tenant in ("acme", "blue")]
        async with (
            serving(directory, binary=binary, **SMALL) as run,
            grpc.aio.insecure_channel(run.address) as channel,
        ):
            calls = held(channel, acme, CALLS) + held(channel, blue, 2)
            assert await first_refused(calls) == "too many calls of all tenants at once"
            assert await reached(run.service.probes)
            for call in calls:
                call.cancel()

    asyncio.run(story())


def test_streams_of_one_turn_are_refused_with_a_reason(directory: Path) -> None:
    """The `Attach` beyond the bound is told why and when to try again; other calls are served."""

    async def story() -> None:
        async with serving(directory, fake=True, server={"max_turn_streams": 3}) as run:
            turn = run.client.send(fake(verbs.hang()), session="a")
            await anext(turn)
            request = pb.AttachRequest(session_id="a", turn_id=turn.turn_id)
            streams = [run.stub.Attach(request) for _ in range(3)]
            told = await first_refused(streams)
            assert told == "as many streams follow the turn as may: 3"
            assert (await run.client.ask("Say x", session="b")).text == "x"
            for stream in streams:
                stream.cancel()
            await run.client.interrupt(turn.turn_id, "a")
            assert [event async for event in turn]

    asyncio.run(story())


REFUSED_STREAM = b"\0\0\0\x07"  # by HTTP/2: it was not begun and may be repeated
MAX_CONCURRENT_STREAMS = 3


def test_a_connection_has_a_hundred_streams(directory: Path) -> None:
    """The transport says so to clients, and refuses what goes beyond; another connection is
    served. Stock clients wait by themselves."""

    def story(port: int) -> None:
        with http2.Http2(port) as client, http2.Http2(port) as other:
            frames = client.frames(BOUND)
            granted = next(f.payload for f in frames if f.kind == http2.SETTINGS)
            assert dict(struct.iter_unpack(">HI", granted))[MAX_CONCURRENT_STREAMS] == 100
            streams = [client.begin(SEND) for _ in range(101)]
            refused = next(f for f in frames if f.kind == http2.RESET)
            assert (refused.stream, refused.payload) == (streams[-1], REFUSED_STREAM)
            # A method that needs no message: the streams of the first hold their tenant's permits.
            asked = other.call("/t.T/Nothing")
            assert any(f.kind == http2.HEADERS and f.stream == asked for f in other.frames(BOUND))

    async def run() -> None:
        async with serving(directory, fake=True) as running:
            port = int(running.address.rpartition(":")[2])
            await asyncio.to_thread(story, port)

    asyncio.run(run())
