"""Health: the listener of its own that probes ask, and what callers may ask of it."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support import http2
from support.service import Running, key_for, prepare, serving, until
from support.timeouts import BOUND

import samovar
from samovar import errors
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc
from samovard.edge import receiving, server
from samovard.edge.gate import PROBE_WATCHERS, STRANGERS
from samovard.edge.health import SESSION
from samovard.settings import Server, Settings

SERVING = health_pb2.HealthCheckResponse.SERVING
KEYS = {"methods": ["api_key"]}
CHECK = "/grpc.health.v1.Health/Check"


def bare(channel: Any, method: str) -> Any:
    return channel.unary_unary(method)(b"")


def begun(channel: Any) -> Any:
    """Begin a `Check` and send no message yet."""
    return channel.stream_stream(CHECK)()


def watched(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())


OTHERS: list[Callable[[grpc.aio.Channel], Any]] = [
    lambda channel: session_pb2_grpc.SessionStub(channel).GetSession(pb.GetSessionRequest()),
    lambda channel: bare(channel, "/samovar.v1.Pool/ListPools"),
    lambda channel: bare(channel, "/grpc.health.v1.Health/Nothing"),
]


def asked(channel: grpc.aio.Channel, service: str = "", **options: Any) -> Any:
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=BOUND, **options)


async def refusal(call: Any) -> Any:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value


async def with_keys(stack: AsyncExitStack, directory: Path, **server: Any) -> Running:
    binary = await prepare(directory, fake=True)
    made: dict[str, Any] = {"server": {"listen": "127.0.0.1:0", **server}, "auth": KEYS}
    return await stack.enter_async_context(serving(directory, binary=binary, **made))


def test_probes_need_no_credential(directory: Path) -> None:
    """Where callers have keys the listener for probes answers without one, and nothing else
    than health; callers' own listener does not answer such a call."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            run = await with_keys(stack, directory)
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(run.service.probes))
            for name in ("", SESSION, "grpc.health.v1.Health"):
                assert (await asked(channel, name)).status == SERVING
            for call in OTHERS:
                error = await refusal(call(channel))
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED
            public = await stack.enter_async_context(grpc.aio.insecure_channel(run.address))
            error = await refusal(asked(public))
            assert errors.of(error).reason == "CREDENTIAL_INVALID"

    asyncio.run(story())


@pytest.mark.parametrize("scope", ["session.send", "session.read"])
def test_a_caller_asks_with_any_credential(directory: Path, scope: str) -> None:
    """The clients show their key when they ask for health, whatever it is good for."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            run = await with_keys(stack, directory)
            key = await key_for(directory, "acme", scope)
            async with samovar.AsyncClient(run.address, api_key=key) as client:
                await client.wait(BOUND)
                assert await client.health() == "serving"

            def blocking() -> str:
                with samovar.Client(run.address, api_key=key) as client:
                    return client.health()

            assert await asyncio.to_thread(blocking) == "serving"

    asyncio.run(story())


def test_a_platform_with_one_port_asks_that(
    directory: Path,
) -> None:
    """With `public_health` callers without a credential may ask, and so many at once that they
    keep nobody else out; the next is told why and when to try again."""

    async def story() -> None:
        async with AsyncExitStack() as stack:
            run = await with_keys(stack, directory, public_health=True)
            key = await key_for(directory, "acme")
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(run.address))
            assert (await asked(channel)).status == SERVING
            held = [begun(channel) for _ in range(STRANGERS)]
            found: list[Any] = []

            async def refused() -> bool:
                try:
                    await asked(channel)
                except grpc.aio.AioRpcError as error:
                    found.append(errors.of(error))
                return bool(found)

            async with asyncio.timeout(BOUND):
                while not await refused():
                    pass
            assert found[0].reason == "QUOTA_EXCEEDED"
            assert found[0].retry_delay == 1.0
            known = (("authorization", f"Bearer {key}"),)
            assert (await asked(channel, metadata=known)).status == SERVING
            for call in held:
                await call.done_writing()
                assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
            async with asyncio.timeout(BOUND):
                while await refused():
                    found.clear()
            watch = watched(channel)
            assert await watch.code() is grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(story())


def test_watchers_leave_room_for_checks(directory: Path) -> None:
    """Half of what probes may ask at once are watches; the next one is told so."""

    async def story() -> None:
        async with (
            serving(directory, fake=True) as run,
            grpc.aio.insecure_channel(run.service.probes) as channel,
        ):
            watches = [watched(channel) for _ in range(PROBE_WATCHERS)]
            for watch in watches:
                assert (await watch.read()).status == SERVING
            one_more = watched(channel)
            assert await one_more.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (await asked(channel, SESSION)).status == SERVING
            for watch in watches:
                watch.cancel()

    asyncio.run(story())


def test_a_probe_is_small(directory: Path) -> None:
    """A message over 4 KiB is refused unread, and one that does not come ends the call."""

    async def story() -> None:
        async with (
            serving(directory, fake=True) as run,
            grpc.aio.insecure_channel(run.service.probes) as channel,
        ):
            error = await refusal(asked(channel, "x" * 4096))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            error = await refusal(asked(channel, "x" * 4000))
            assert error.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(story())
    assert (server.PROBE_CALLS, PROBE_WATCHERS) == (64, 32)
    assert server.PROBE_OPTIONS["grpc.max_allowed_incoming_connections"] == 64


def test_probes_are_answered_until_the_end(directory: Path) -> None:
    """A service that leaves takes no calls any more, and says so to probes."""

    async def story() -> None:
        async with (
            serving(directory, fake=True, server={"drain_grace": "1 h"}) as run,
            grpc.aio.insecure_channel(run.service.probes) as channel,
            run.client.send(fake(v.hang()), session="a") as turn,
        ):
            assert isinstance(await anext(turn), samovar.TurnStarted)
            hurry = asyncio.Event()
            leaving = asyncio.create_task(run.service.shut_down(hurry))
            await until(lambda: not run.service.maintenance.health.serves)
            assert (await asked(channel, SESSION)).status != SERVING
            assert (await asked(channel)).status == SERVING
            hurry.set()
            await leaving

    asyncio.run(story())


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ({}, "127.0.0.1:50052"),
        ({"listen": "0.0.0.0:8080"}, "127.0.0.1:8081"),
        ({"listen": "[::1]:65535"}, "127.0.0.1:65534"),
        ({"listen": "127.0.0.1:0"}, "127.0.0.1:0"),
        ({"listen": "unix:/run/c.sock"}, ""),
        ({"listen": "unix:/run/c.sock", "health_listen": "0.0.0.0:1"}, "0.0.0.0:1"),
        ({"health_listen": "unix:/run/h.sock"}, "unix:/run/h.sock"),
    ],
)
def test_probes_are_on_loopback_by_default(given: dict[str, str], address: str) -> None:
    """Beside the port for callers, or where the settings say."""
    assert Server.model_validate(given).probes == address


def test_beside_a_socket_probes_have_one(directory: Path) -> None:
    """Where callers have no port it is `health.sock` in the state directory."""

    async def story() -> None:
        listen = {"listen": f"unix:{directory / 'c.sock'}"}
        async with (
            serving(directory, fake=True, server=listen) as run,
            grpc.aio.insecure_channel(f"unix:{directory / 'health.sock'}") as channel,
        ):
            assert run.service.probes == f"unix:{directory / 'health.sock'}"
            assert (await asked(channel)).status == SERVING

    asyncio.run(story())


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:70000", "unix:" + "/x" * 60])
def test_an_address_for_probes_that_cannot_be_is_refused(address: str) -> None:
    """With a sentence that names the setting."""
    with pytest.raises(ValueError, match=r"server\.health_listen"):
        Settings.model_validate({"server": {"health_listen": address}})


def test_a_call_without_a_message_ends(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On every listener, also of a client that sends nothing more."""
    monkeypatch.setattr(receiving, "MESSAGE_TIME", 0.2)

    def ends(port: int, method: str) -> bool:
        with http2.Http2(port) as client:
            stream = client.begin(method)
            frames = client.frames(BOUND)
            return any(f.stream == stream and f.flags & http2.END_STREAM for f in frames)

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            calls = {run.service.probes: CHECK, run.address: "/samovar.v1.Session/Send"}
            for address, method in calls.items():
                port = int(address.rpartition(":")[2])
                assert await asyncio.to_thread(ends, port, method)

    asyncio.run(story())
