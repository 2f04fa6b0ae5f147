"""The bytes of a tunnel: all of them, in order, no faster than they are taken, until both end."""

import asyncio
import hashlib
import socket
import struct
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.file_descriptors import descriptors
from support.service import until
from support.timeouts import BOUND
from support.tooled import HOST, Tooled, tooled

from samovard.agent.broker import tunnel

MUCH = 32 << 20  # bytes, more than the system keeps between two ends


def told(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), BOUND))


def running(found: Tooled) -> tunnel.Tunnel:
    """Return the one tunnel that is open."""
    (serving,) = found.broker._serving.values()
    (one,) = serving._passages._running
    assert one.tunnel is not None
    return one.tunnel


def held_up(writer: tunnel.End, reader: tunnel.End) -> bool:
    """Return whether an end is not read, for what its other end has not taken. Bounded."""
    waiting = reader.transport.get_write_buffer_size()
    assert waiting <= 64 << 10
    return waiting > 0 and not writer.transport.is_reading()


def test_bytes_pass_both_ways() -> None:
    """And are counted for what is told of the connection once it is over."""

    async def story() -> None:
        async with tooled() as found:
            reader, writer = await found.tunnel()
            for data in (b"one", b"\0\xff" * 50_000):
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
            assert found.passages == []
            writer.close()
            await until(lambda: found.passages)
            (passage,) = found.passages
            assert (passage.tenant, passage.profile, passage.session) == ("acme", "work", "label")
            assert (passage.host, passage.port, passage.verdict) == (HOST, 443, "passed")
            assert passage.sent == passage.received == 100_003

    told(story)


def test_what_comes_with_the_request_is_sent_on() -> None:
    """A tool need not wait for the answer to it."""

    async def story() -> None:
        async with tooled() as found:
            reader, writer = await found.streams(found.connect() + b"early" * 1000)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(5000) == b"early" * 1000
            writer.close()

    told(story)


def test_the_end_of_a_tools_input_is_passed_on() -> None:
    """The answer that the host gives upon it still comes."""

    async def count(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"%d bytes" % len(await reader.read()))

    async def story() -> None:
        async with tooled(count) as found:
            reader, writer = await found.tunnel()
            writer.write(b"x" * 100_000)
            writer.write_eof()
            assert await reader.read() == b"100000 bytes"
            writer.close()
            await until(lambda: found.passages)

    told(story)


def test_the_end_of_a_hosts_input_is_passed_on() -> None:
    """What the tool says after it still arrives."""
    heard: list[bytes] = []

    async def leave(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"bye")
        writer.write_eof()
        heard.append(await reader.read())

    async def story() -> None:
        async with tooled(leave) as found:
            reader, writer = await found.tunnel()
            assert await reader.read() == b"bye"
            writer.write(b"and so on")
            writer.write_eof()
            await until(lambda: found.passages)
            await until(lambda: heard == [b"and so on"])
            writer.close()

    told(story)


def test_a_host_that_does_not_read_holds_its_tool_up() -> None:
    """Nothing piles up meanwhile, and nothing is lost."""
    reads = asyncio.Event()
    sums: list[str] = []

    async def wait(reader: StreamReader, writer: StreamWriter) -> None:
        await reads.wait()
        sums.append(hashlib.sha256(await reader.read()).hexdigest())

    async def story() -> None:
        async with tooled(wait) as found:
            data = bytes(range(256)) * (MUCH // 256)
            _, writer = await found.tunnel()
            writer.write(data)
            writer.write_eof()
            passing = running(found)
            await until(lambda: held_up(passing._near, passing._far))
            reads.set()
            await until(lambda: found.passages)
            assert sums == [hashlib.sha256(data).hexdigest()]
            writer.close()

    told(story)


def test_a_tool_that_does_not_read_holds_its_host_up() -> None:
    """However much the host has to say."""
    data = bytes(range(256)) * (MUCH // 256)

    async def pour(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    async def story() -> None:
        async with tooled(pour) as found:
            reader, writer = await found.tunnel()
            passing = running(found)
            await until(lambda: held_up(passing._far, passing._near))
            assert await reader.read() == data
            writer.close()

    told(story)


def test_a_tunnel_without_a_byte_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both its ends see that."""
    monkeypatch.setattr(tunnel, "IDLE_TIMEOUT", 0.05)
    heard: list[bytes] = []

    async def listen(reader: StreamReader, writer: StreamWriter) -> None:
        heard.append(await reader.read())

    async def story() -> None:
        async with tooled(listen) as found:
            reader, writer = await found.tunnel()
            assert await reader.read() == b""
            await until(lambda: heard == [b""])
            await until(lambda: [passage.verdict for passage in found.passages] == ["passed"])
            writer.close()

    told(story)


def test_a_reader_that_never_comes_back_does_not_keep_a_tunnel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waits for it is dropped, though its host has left long ago."""
    monkeypatch.setattr(tunnel, "IDLE_TIMEOUT", 0.2)

    async def pour(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(bytes(MUCH))
        await writer.drain()

    async def story() -> None:
        async with tooled(pour) as found:
            _, writer = await found.tunnel()
            await until(lambda: found.passages)
            writer.close()

    told(story)


def test_a_host_that_breaks_off_does_not_seem_to_end() -> None:
    """A reader could take what it has for all."""

    async def reset(reader: StreamReader, writer: StreamWriter) -> None:
        writer.write(b"part")
        await reader.readexactly(1)
        at_once = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        writer.transport.abort()

    async def story() -> None:
        async with tooled(reset) as found:
            reader, writer = await found.tunnel()
            assert await reader.readexactly(4) == b"part"
            writer.write(b"x")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await until(lambda: [passage.received for passage in found.passages] == [4])
            writer.close()

    told(story)


def test_tunnels_end_with_their_address() -> None:
    """At once, at both ends, though their host and tool would go on."""
    left = asyncio.Event()

    async def stay(reader: StreamReader, writer: StreamWriter) -> None:
        try:
            await reader.read()
        finally:
            left.set()

    async def story() -> None:
        async with tooled(stay) as found:
            reader, writer = await found.tunnel()
            found.address.close()
            assert await reader.read() == b""
            await left.wait()
            await until(lambda: found.passages)
            writer.close()

    told(story)


def test_tunnels_end_with_the_broker() -> None:
    """They are told of before it has gone, and no descriptor is left of them."""

    async def story() -> None:
        before = descriptors()
        async with tooled() as found:
            pairs = [await found.tunnel() for _ in range(5)]
        assert len(found.passages) == 5
        for reader, writer in pairs:
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert descriptors() <= before

    told(story)


def test_nothing_is_left_of_tunnels_that_end() -> None:
    """Of whichever side ended them, while the broker runs on."""

    async def story() -> None:
        async with tooled() as found:
            for count in range(40):
                reader, writer = await found.tunnel()
                if count % 2:
                    writer.transport.abort()
                else:
                    writer.write_eof()
                    assert await reader.read() == b""
                    writer.close()
            await until(lambda: len(found.passages) == 40)
            (serving,) = found.broker._serving.values()
            assert not serving._passages._running
            assert not serving._doors.waiting

    told(story)
