"""Where the first bytes of a connection lead, and what becomes of those that say too little."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.brokered import brokered, status
from support.timeouts import BOUND
from support.tooled import tooled

from samovard.agent.broker import door
from samovard.agent.broker.heads import MAX_HEAD


def told(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), BOUND))


async def sent_slowly(port: int, data: bytes, pieces: int) -> bytes:
    """Send data in pieces that the other end sees one by one, and return the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for place in range(pieces):
        writer.write(data[place : place + 1])
        for _ in range(20):
            await asyncio.sleep(0)
    writer.write(data[pieces:])
    answer = await reader.read()
    writer.close()
    return answer


def test_a_request_to_the_api_may_come_byte_by_byte() -> None:
    """It is led there whole."""

    async def story() -> None:
        async with brokered() as found:
            answer = await sent_slowly(found.port, found.request(b"body" * 20_000), 60)
            assert status(answer) == 200
            assert found.seen[0].body == b"body" * 20_000

    told(story)


def test_a_request_of_a_tool_may_come_byte_by_byte() -> None:
    """As one to the API may."""

    async def story() -> None:
        async with tooled(hosts=()) as found:
            request = found.connect()
            assert status(await sent_slowly(found.port, request, len(request))) == 403

    told(story)


def test_one_socket_serves_both() -> None:
    """A tool's requests take nothing from those to the API."""

    async def story() -> None:
        async with brokered() as found:
            connect = b"CONNECT files.example:443 HTTP/1.1\r\n\r\n"
            assert status(await found.raw(connect)) == 407
            assert status(await found.raw(found.request())) == 200

    told(story)


@pytest.mark.parametrize("data", [b"CON", b"CONNECT files.example:443 HTTP/1.1\r\nx: y\r\n"])
def test_a_head_that_does_not_come_is_given_up(data: bytes, monkeypatch: Any) -> None:
    """However far it came, without an answer."""
    monkeypatch.setattr(door, "HEAD_TIMEOUT", 0.05)

    async def story() -> None:
        async with tooled() as found:
            assert await found.raw(data) == b""
            assert found.passages == []

    told(story)


def test_a_head_has_a_bound() -> None:
    """One byte below it passes, one above does not; it is told of."""

    async def story() -> None:
        async with tooled(hosts=()) as found:
            for length, answer in ((MAX_HEAD, 403), (MAX_HEAD + 1, 431), (100_000, 431)):
                head = found.connect()[:-2] + b"x: \r\n\r\n"
                whole = head.replace(b"x: ", b"x: " + b"y" * (length - len(head)))
                assert len(whole) == length
                assert status(await found.raw(whole)) == answer
            told = [passage.verdict for passage in found.passages]
            assert told == ["no_hosts", "too_large", "too_large"]

    told(story)


def test_a_refusal_is_read_though_more_was_sent() -> None:
    """The rest of a request is taken and dropped, for as long as that is decent."""

    async def story() -> None:
        async with tooled(hosts=()) as found:
            head = found.get(method="POST", head=b"Content-Length: 3000000\r\n")
            assert status(await found.raw(head + bytes(3_000_000))) == 403

    told(story)


def test_a_tool_that_does_not_leave_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection ends though it keeps its own side open."""
    monkeypatch.setattr(door, "LINGERING", 0.05)

    async def story() -> None:
        async with tooled(hosts=()) as found:
            reader, writer = await found.streams(found.connect())
            assert status(await reader.read()) == 403
            with pytest.raises(OSError):
                while True:
                    writer.write(b"x")
                    await writer.drain()
            writer.close()

    told(story)


def test_connections_that_say_nothing_are_counted() -> None:
    """Beyond the bound of an agent's connections no more are taken, for a proxy or the API."""

    async def story() -> None:
        async with tooled() as found:
            pairs = [await found.streams(b"CONNECT") for _ in range(door.MAX_CONNECTIONS)]
            assert await found.raw(b"") == b""
            pairs[0][1].write(found.connect()[7:])
            assert status(await pairs[0][0].readuntil(b"\r\n\r\n")) == 200
            assert status(await found.raw(found.connect("other.example:443"))) == 403
            for _, writer in pairs:
                writer.close()

    told(story)
