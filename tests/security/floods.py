"""Frames that cost their sender nothing, by the thousand."""

import asyncio
import contextlib
import struct
import time
from collections.abc import Callable

from support import http2
from support.http2 import Http2
from support.timeouts import BOUND

from security.arena import Arena
from security.catalog import attack
from security.transport import CANCEL, LIST, SEND, bare

Flood = Callable[[Http2], None]


async def flooded(arena: Arena, flood: Flood, *, answers: bool = True) -> bool:
    """Send a flood while the victim has a turn. Return True if its sender was sent away.

    `answers`: what is answered to its end has not been.
    """

    def story(client: Http2) -> bool:
        assert next(client.frames(BOUND), None) is not None
        with contextlib.suppress(OSError):
            flood(client)
            client.send(http2.PING, 0, 0, b"the last")
        begin = time.monotonic()
        for frame in client.frames(BOUND if answers else arena.patience):
            if frame.kind == http2.GOAWAY:
                return True
            if answers and frame.kind == http2.PING and frame.payload == b"the last":
                return False
        return answers or time.monotonic() - begin < arena.patience  # closed without a word

    flooding = asyncio.create_task(bare(arena, story))
    assert not (wrong := await arena.victim.served()), wrong
    return await flooding


@attack("edge.gate._denying", "plain", "tls")
async def calls_that_are_reset_at_once(arena: Arena) -> None:
    """HTTP/2 rapid reset, with a credential and without: no call is left, and no memory."""
    before = await arena.stats()

    def flood(client: Http2) -> None:
        for number in range(arena.scale(1000, 20_000)):
            fields = arena.metadata() if number % 2 else {}
            client.send(http2.RESET, 0, client.begin(SEND, **fields), CANCEL)

    await flooded(arena, flood)
    more = (await arena.stats())["peak"] - before["peak"]
    assert more < 96 << 20, f"{more >> 20} MiB"


@attack("edge.server.OPTIONS", "plain", "tls", without="pings")
async def pings_without_end(arena: Arena) -> None:
    """A client that pings more than it may is sent away."""

    def flood(client: Http2) -> None:
        for _ in range(arena.scale(1000, 20_000)):
            client.send(http2.PING, 0, 0, bytes(8))

    assert await flooded(arena, flood, answers=False)


@attack("edge.server.OPTIONS", "plain", "tls")
async def headers_that_never_end(arena: Arena) -> None:
    """A CONTINUATION flood is refused after 16 MiB: gRPC's limit of metadata is of one frame."""

    def story(client: Http2) -> bool:
        field = http2.block({"x": 16_000 * "y"})
        fields = {":method": "POST", ":scheme": "http", ":path": LIST, ":authority": "x"}
        fields |= {"te": "trailers", "content-type": "application/grpc", **arena.metadata()}
        with contextlib.suppress(OSError):
            client.send(http2.HEADERS, 0, 1, http2.block(fields))
            for _ in range(arena.scale(1_100, 5_000)):
                client.send(http2.CONTINUATION, 0, 1, field)
            client.send(http2.CONTINUATION, http2.END_HEADERS, 1, field)
            client.send(http2.DATA, http2.END_STREAM, 1, bytes(5))
        for frame in client.frames(BOUND):
            if frame.stream == 1 and frame.kind == http2.DATA:
                return False  # it was answered
            if frame.stream == 1 and (frame.flags & http2.END_STREAM or frame.kind == http2.RESET):
                return True
        return True

    before = await arena.stats()
    assert await bare(arena, story)
    more = (await arena.stats())["peak"] - before["peak"]
    assert more < 128 << 20, f"{more >> 20} MiB"


@attack("edge.server.public", "plain", "tls")
async def settings_without_end(arena: Arena) -> None:
    """SETTINGS by the thousand, known and unknown, change nothing for others."""

    def flood(client: Http2) -> None:
        for number in range(arena.scale(1000, 20_000)):
            payload = struct.pack(">HI", number % 9, number)
            client.send(http2.SETTINGS, 0, 0, payload)

    await flooded(arena, flood)


@attack("edge.server.public", "plain", "tls")
async def frames_that_say_nothing(arena: Arena) -> None:
    """PRIORITY, empty DATA, unknown kinds and window updates end their connection at most."""

    def flood(client: Http2) -> None:
        stream = client.begin(SEND, **arena.metadata())
        for number in range(arena.scale(500, 5_000)):
            client.send(http2.PRIORITY, 0, 2 * number + 1, b"\0\0\0\0\0")
            client.send(http2.DATA, 0, stream)
            client.send(200, 0, stream, b"x")
            client.send(http2.WINDOW_UPDATE, 0, 0, b"\0\0\0\1")

    await flooded(arena, flood)


@attack("edge.server.public", "plain", "tls")
async def windows_that_break_the_rules(arena: Arena) -> None:
    """No window, one past the largest, and frames for streams that never were."""
    for kind, stream, payload in (
        (http2.WINDOW_UPDATE, 0, bytes(4)),
        (http2.WINDOW_UPDATE, 0, b"\x7f\xff\xff\xff"),
        (http2.DATA, 77, b"x"),
        (http2.RESET, 76, CANCEL),
        (http2.CONTINUATION, 1, b""),
        (http2.HEADERS, 2, b""),
        (http2.PING, 5, b"short"),
        (http2.SETTINGS, 0, b"odd"),
    ):

        def flood(
            client: Http2, kind: int = kind, stream: int = stream, payload: bytes = payload
        ) -> None:
            client.send(kind, 0, stream, payload)

        await flooded(arena, flood)
