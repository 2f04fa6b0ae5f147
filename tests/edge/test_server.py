"""The gRPC servers' options, as a client that is none of gRPC's sees them."""

import asyncio
import contextlib
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from grpc_health.v1 import health_pb2_grpc
from support import http2
from support.service import serving
from support.timeouts import BOUND

import samovar
from samovard.edge.health import Health
from samovard.edge.server import OPTIONS, TransportBounds
from samovard.settings import Settings


def test_options_are_those_that_were_measured() -> None:
    """Each was chosen for a reason; a name that is not read would be no error."""
    assert dict(OPTIONS) == {
        "grpc.so_reuseport": 0,
        "grpc.max_concurrent_streams": 100,
        "grpc.max_allowed_incoming_connections": 1000,
        "grpc.max_receive_message_length": (8 << 20) + (64 << 10),
        "grpc.http2.bdp_probe": 0,
        "grpc.max_metadata_size": 8 << 10,
        "grpc.absolute_max_metadata_size": 16 << 10,
        "grpc.server_handshake_timeout_ms": 10_000,
        "grpc.keepalive_time_ms": 20_000,
        "grpc.keepalive_timeout_ms": 10_000,
        "grpc.http2.ping_timeout_ms": 10_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        "grpc.http2.min_ping_interval_without_data_ms": 10_000,
        "grpc.http2.max_ping_strikes": 2,
        "grpc.max_connection_idle_ms": 60_000,
    }


def test_an_age_comes_with_the_time_that_the_longest_call_may_take() -> None:
    """Also where that is more than gRPC can count."""
    options = dict(TransportBounds(10, 50, 1800.0, 1920.5).options())
    assert options["grpc.max_connection_age_ms"] == 1_800_000
    assert options["grpc.max_connection_age_grace_ms"] == 1_920_500
    longest = dict(TransportBounds(10, 50, 1800.0, 1e9).options())
    assert longest["grpc.max_connection_age_grace_ms"] == 2**31 - 1
    assert options["grpc.max_allowed_incoming_connections"] == 50
    assert TransportBounds(10).options() == OPTIONS


@contextlib.asynccontextmanager
async def listening(**options: int) -> AsyncIterator[int]:
    """Runs a server of health alone, with some options changed; gives its port."""
    changed = {**dict(OPTIONS), **{f"grpc.{name}": value for name, value in options.items()}}
    server = grpc.aio.server(options=tuple(changed.items()))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def seen(
    port: int, act: Callable[[http2.Http2], list[http2.Frame]]
) -> Awaitable[list[http2.Frame]]:
    def look() -> list[http2.Frame]:
        with http2.Http2(port) as client:
            return act(client)

    return asyncio.to_thread(look)


def test_a_client_that_vanished_is_noticed(directory: Path) -> None:
    """It is pinged, also without any call, and let go when it does not answer; here within
    a second instead of thirty."""

    async def story() -> None:
        def silent(client: http2.Http2) -> list[http2.Frame]:
            client.send(http2.SETTINGS, http2.ACK, 0)
            return [*client.frames(BOUND, answers=False)]

        short = {"keepalive_time_ms": 500, "keepalive_timeout_ms": 300}
        async with listening(**short, **{"http2.ping_timeout_ms": 300}) as port:
            begin = time.monotonic()
            frames = await seen(port, silent)
            assert [f for f in frames if f.kind == http2.PING and not f.flags & http2.ACK]
            assert b"ping_timeout" in frames[-1].payload
            assert time.monotonic() - begin > 0.5

    asyncio.run(story())


def test_a_client_that_answers_is_kept(directory: Path) -> None:
    """As long as it is there it is there."""

    async def story() -> None:
        async with listening(keepalive_time_ms=200, keepalive_timeout_ms=200) as port:
            frames = await seen(port, lambda client: [*client.frames(1.5)])
            assert len([f for f in frames if f.kind == http2.PING]) > 3
            assert not [f for f in frames if f.kind == http2.GOAWAY]

    asyncio.run(story())


def test_a_client_that_pings_without_end_is_sent_away(directory: Path) -> None:
    """Two pings too early are forgiven, not more."""

    async def story() -> None:
        def ping(client: http2.Http2) -> list[http2.Frame]:
            with contextlib.suppress(ConnectionError):  # it may be sent away before the last
                for number in range(6):
                    client.send(http2.PING, 0, 0, struct.pack(">Q", number))
            return [*client.frames(5.0)]

        async with serving(directory, fake=True) as run:
            port = int(run.address.rpartition(":")[2])
            sent_away = [f for f in await seen(port, ping) if f.kind == http2.GOAWAY]
            assert b"too_many_pings" in sent_away[-1].payload

    asyncio.run(story())


def test_a_connection_that_is_too_old_takes_no_calls_and_cuts_none(directory: Path) -> None:
    """A turn that began on it ends as it would have; the next call makes another one."""

    async def story() -> None:
        gate = directory / "gate"
        aged = {"max_connection_age": "500 ms"}
        async with serving(directory, fake=True, server=aged) as run:
            port = int(run.address.rpartition(":")[2])
            text = fake(v.gate(gate), v.text("whole"))
            async with run.client.send(text) as turn:
                assert isinstance(await anext(turn), samovar.TurnStarted)
                # One that is younger than the turn's is old by the end of this.
                frames = await seen(port, lambda client: [*client.frames(BOUND)])
                assert [f for f in frames if f.kind == http2.GOAWAY]
                assert (await run.client.ask("Say another", session="other")).text == "another"
                gate.touch()
                texts = [e.text async for e in turn if isinstance(e, samovar.TextDelta)]
            assert "".join(texts) == "whole"

    asyncio.run(story())


@pytest.mark.parametrize("age", ["0 s", "-1 s", "soon"])
def test_an_age_that_is_none_is_refused(age: str) -> None:
    """A connection that is too old at once could not be used."""
    with pytest.raises(ValueError, match="max_connection_age"):
        Settings.model_validate({"server": {"max_connection_age": age}})
