"""Connections and messages that no gRPC client makes."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import TypeVar

import grpc
from support import http2
from support.http2 import Http2
from support.timeouts import BOUND

from samovard.edge.permits import EACH
from security.actors import OK
from security.arena import ATTACKER, Arena
from security.catalog import attack

T = TypeVar("T")
SEND, LIST = "/samovar.v1.Session/Send", "/samovar.v1.Session/ListSessions"
HEAD = b"\0" + struct.pack(">I", 8 << 20)  # of a message of 8 MiB
CANCEL, REFUSED = b"\0\0\0\x08", b"\0\0\0\x07"
MAX_STREAMS = 3  # of SETTINGS
FULL = grpc.StatusCode.RESOURCE_EXHAUSTED
UNREACHED = grpc.StatusCode.UNAVAILABLE


async def bare(arena: Arena, story: Callable[[Http2], T], *, window: int = 65535) -> T:
    """Tell a story on a bare connection, in a thread."""

    def run() -> T:
        with arena.http2(window=window) as client:
            return story(client)

    return await asyncio.to_thread(run)


def reached(client: Http2) -> bool:
    """Return True once a connection is greeted, False if it is closed before."""
    return next(client.frames(BOUND), None) is not None


def closed(sock: socket.socket, seconds: float) -> bool:
    """Return True if the other side closes a socket in time."""
    sock.settimeout(seconds)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True


@attack("edge.certificates.Certificates.credentials", "tls", "mtls")
async def plain_text_on_a_port_for_tls(arena: Arena) -> None:
    """Nothing is answered without TLS, to no client."""
    secure, arena.kind = arena.kind, "plain"
    try:
        caller = arena.caller(ATTACKER)
    finally:
        arena.kind = secure
    assert (await caller.call("ListSessions")).code is UNREACHED

    def plain() -> bool:
        with Http2(arena.port) as client:
            return reached(client)

    assert not await asyncio.to_thread(plain)


@attack("edge.certificates.Served.configuration", "tls")
async def tls_of_another_time(arena: Arena) -> None:
    """Older versions, and a handshake that does not choose HTTP/2, end before any call."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    old = ssl.TLSVersion.TLSv1_1
    context.minimum_version = context.maximum_version = old

    def connect(context: ssl.SSLContext) -> bool:
        try:
            with Http2(arena.port, tls=context) as client:
                return reached(client)
        except OSError:
            return False

    assert not await asyncio.to_thread(connect, context), "TLS 1.1 is taken"
    unnamed = arena.context()
    assert unnamed is not None
    assert await asyncio.to_thread(connect, unnamed)
    unnamed.set_alpn_protocols(["http/1.1"])
    assert not await asyncio.to_thread(connect, unnamed), "HTTP/1.1 is taken"


@attack("edge.server.OPTIONS", "plain", "tls", without="streams")
async def more_streams_than_a_connection_may_have(arena: Arena) -> None:
    """The limit is announced, and what goes past it is refused while others are served."""

    def story(client: Http2) -> bool:
        greeting = next(f.payload for f in client.frames(BOUND) if f.kind == http2.SETTINGS)
        if dict(struct.iter_unpack(">HI", greeting)).get(MAX_STREAMS) != 100:
            return False
        with contextlib.suppress(OSError):
            for number in range(140):
                tenant = (ATTACKER, "crowd")[number % 2]
                client.begin(SEND, **arena.metadata(tenant))
        frames = client.frames(arena.patience)
        return any(f.kind == http2.RESET and f.payload == REFUSED for f in frames)

    assert await bare(arena, story)


@attack("edge.server.TransportBounds.options", "plain", "tls", without="metadata")
async def metadata_without_end(arena: Arena) -> None:
    """Past 16 KiB a call is refused, as one field or as thousands."""
    many = [(f"x-{number}", "y") for number in range(2000)]
    for metadata in (
        [("x", 17_000 * "y")],
        [("x", 300_000 * "y")],
        many,
        [("x-bin", bytes(20_000))],
    ):
        answer = await arena.attacker.call("ListSessions", metadata=metadata)
        assert answer.code is not OK, len(metadata)
    assert (await arena.attacker.call("ListSessions", metadata=[("x", 500 * "y")])).code is OK


@attack("edge.validate.MAX_REQUEST", "plain", "tls", without="message's size")
async def a_compressed_bomb(arena: Arena) -> None:
    """What unpacks to more than a request may be is refused as gRPC's own, within memory."""
    before = await arena.stats()
    size = arena.scale(32, 128) << 20
    for _ in range(3):
        call = arena.attacker.channel.unary_stream(SEND, None, None)(
            bytes(size), metadata=arena.attacker.shown, compression=grpc.Compression.Gzip
        )
        answer = await arena.attacker.end(call)
        assert (answer.code, answer.reason) == (FULL, ""), answer
    more = (await arena.stats())["peak"] - before["peak"]
    assert more < 2 * size, f"{more >> 20} MiB for a bomb of {size >> 20}"


@attack("edge.receiving._reader", "plain", "tls", without="reader")
async def bytes_that_are_no_message(arena: Arena) -> None:
    """Broken protobuf, bad UTF-8 and deep nesting are the caller's fault, in words of ours."""
    deep = b""
    for _ in range(200):
        deep = b"\x0b" + deep + b"\x0c"
    for data in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x03\xed\xa0\x80", b"\x0a\x7f", deep):
        for method in ("Send", "GetSession", "Respond"):
            answer = await arena.attacker.call(method, data)
            assert answer.code is not OK, data
            assert answer.reason in ("REQUEST_INVALID", "SESSION_NOT_FOUND"), (method, data, answer)


BROKEN = (
    {":method": "GET"},
    {":path": ""},
    {":scheme": "file"},
    {":authority": "evil.test, localhost"},
    {"te": "gzip"},
    {"content-type": "text/html"},
    {"grpc-timeout": "1e9H"},
    {"grpc-timeout": "-1S"},
    {"grpc-timeout": "99999999999999H"},
    {"grpc-encoding": "nothing"},
    {"grpc-accept-encoding": 500 * "x,"},
    {"x-bin": "%%% no base64"},
    {"connection": "upgrade"},
    {"transfer-encoding": "chunked"},
    {"Upper-Case": "x"},
    {"grpc-previous-rpc-attempts": "9" * 400},
    {"traceparent": "00-" + 32 * "f" + "-" + 16 * "f" + "-zz"},
    {"content-length": "5"},
)
PREFIXES = (
    b"\xff",
    b"\1\0\0\0\1x",
    b"\0\xff\xff\xff\xff",
    b"\0\0\0\0\5x",
    b"\0\0\0\0\0\0\0\0\0\0",
    b"\2",
)


@attack("edge.receiving._receive", "plain", "tls")
async def calls_that_are_broken(arena: Arena) -> None:
    """Odd fields, times and prefixes of messages each end their own call, and no more."""

    def story(client: Http2) -> None:
        for fields in BROKEN:
            client.begin(LIST, **{**arena.metadata(), **fields})
            client.send(http2.DATA, http2.END_STREAM, client.stream, bytes(5))
        for prefix in PREFIXES:
            client.begin(LIST, **arena.metadata())
            client.send(http2.DATA, http2.END_STREAM, client.stream, prefix)
        client.send(http2.PING, 0, 0, bytes(8))
        for frame in client.frames(BOUND):
            if frame.kind in (http2.PING, http2.GOAWAY):
                return

    for _ in range(arena.scale(1, 5)):
        with contextlib.suppress(OSError):
            await bare(arena, story)


@attack("edge.permits.Permits", "plain", "tls", without="permits")
async def messages_that_do_not_end(arena: Arena) -> None:
    """No more than four of a tenant's are received at once; others are still served."""

    def story(client: Http2) -> int:
        waiting = {client.begin(SEND, **arena.metadata()) for _ in range(3 * EACH)}
        for stream in waiting:
            client.send(http2.DATA, 0, stream, HEAD)
        read = set()
        # The longer it is looked at, the surer: what is not read now is not read later.
        for frame in client.frames(arena.patience if arena.lacking else 2.0):
            if frame.kind == http2.WINDOW_UPDATE and frame.stream in waiting:
                read.add(frame.stream)
            if len(read) > EACH:
                break
        return len(read)

    reading = asyncio.create_task(bare(arena, story))
    assert not (wrong := await arena.victim.served()), wrong
    assert await reading <= EACH


@attack("edge.receiving.MESSAGE_TIME", "plain", without="message's time", long=True)
async def a_message_that_never_comes(arena: Arena) -> None:
    """A call without its message ends by itself."""

    def story(client: Http2) -> bool:
        stream = client.begin(SEND, **arena.metadata())
        ends = (http2.HEADERS, http2.RESET)
        frames = client.frames(arena.patience)
        return any(f.kind in ends and f.stream == stream for f in frames)

    assert await bare(arena, story)


@attack("edge.server.public", "plain", "tls", "none")
async def bytes_that_are_not_http2(arena: Arena) -> None:
    """Noise, HTTP/1.1, a preface cut off and TLS where none is are closed or ignored."""
    greetings = [os.urandom(size) for size in (1, 9, 24, 100, 10_000)]
    greetings += [b"GET / HTTP/1.1\r\n\r\n", http2.PREFACE[:10], http2.PREFACE + b"\xff" * 100]
    greetings += [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(100), b""]

    def story() -> None:
        for _ in range(arena.scale(2, 30)):
            for greeting in greetings:
                with socket.create_connection(("127.0.0.1", arena.port), BOUND) as sock:
                    with contextlib.suppress(OSError):
                        sock.sendall(greeting)

    await asyncio.to_thread(story)


@attack("edge.server.OPTIONS", "plain", "tls", without="handshake", long=True)
async def a_greeting_that_never_ends(arena: Arena) -> None:
    """A connection that does not say what it is ends by itself."""

    def story() -> bool:
        with socket.create_connection(("127.0.0.1", arena.port), BOUND) as sock:
            sock.sendall(b"\x16\x03\x01" if arena.tls else http2.PREFACE[:10])
            return closed(sock, arena.patience)

    assert await asyncio.to_thread(story)


@attack("edge.server.TransportBounds", "plain", "tls", without="connections")
async def more_connections_than_there_may_be(arena: Arena) -> None:
    """Past the bound they are closed unheard, and those that there are go on."""
    async with contextlib.AsyncExitStack() as stack:

        def dial() -> bool:
            try:
                client = stack.enter_context(arena.http2())
                return reached(client)
            except OSError:
                return False

        dialled = [await asyncio.to_thread(dial) for _ in range(80)]
        assert not (wrong := await arena.victim.served()), wrong
        assert sum(dialled) <= 64, f"{sum(dialled)} connections"


@attack("edge.server.OPTIONS", "plain", without="idle", long=True)
async def a_connection_without_a_call(arena: Arena) -> None:
    """It ends after a minute."""

    def story(client: Http2) -> bool:
        seconds = max(arena.patience, 90.0)
        return any(frame.kind == http2.GOAWAY for frame in client.frames(seconds))

    assert await bare(arena, story)
