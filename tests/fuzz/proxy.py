"""The bytes that a tool sends to its agent's address as to a proxy.

What reaches a host is looked at there: only a listed one is reached, with one request that has one
reading, and nothing of the password.
"""

import asyncio
import base64
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from random import Random

from support.brokered import status
from support.timeouts import BOUND
from support.tooled import HOST, Tooled, served, tooled

from fuzz.broker import BODIES, ENDS, HEADERS, Sent, answered, bytes_of
from fuzz.drawing import edited
from fuzz.target import Check, Target

OTHER = "other.example"
PASSWORD = "proxy-authorization: Basic {token}"
LINES = (
    f"GET http://{HOST}/page?a=b HTTP/1.1",
    f"POST http://{HOST}:80/page HTTP/1.1",
    f"GET http://{HOST.upper()}./ HTTP/1.1",
    f"CONNECT {HOST}:443 HTTP/1.1",
    f"GET http://{HOST} HTTP/1.0",
    f"GET http://{OTHER}/ HTTP/1.1",
    f"GET http://{HOST}@{OTHER}/ HTTP/1.1",
    f"GET http://{OTHER}\\@{HOST}/ HTTP/1.1",
    f"GET http://{OTHER}#@{HOST}/ HTTP/1.1",
    f"GET http://{HOST}:22/ HTTP/1.1",
    f"GET http://{HOST}.{OTHER}/ HTTP/1.1",
    f"CONNECT {OTHER}:443 HTTP/1.1",
    f"CONNECT {HOST}:22 HTTP/1.1",
    "CONNECT 127.0.0.1:{port} HTTP/1.1",
    "CONNECT [::1]:80 HTTP/1.1",
    "GET http://127.0.0.1:{port}/ HTTP/1.1",
    "GET http://2130706433/ HTTP/1.1",
)
MORE = (
    f"host: {OTHER}",
    f"host: {HOST}:22",
    "connection: keep-alive",
    "connection: host",
    "connection: content-length",
    "connection: close, x-stainless-lang",
    "proxy-connection: keep-alive",
    "proxy-authorization: Basic eA==",
    PASSWORD,
    "te: trailers",
    "keep-alive: 5",
    "transfer-encoding: chunked, chunked",
    "cookie: a=b",
)


class Hosts:
    """What reached the listed host, each connection's bytes, and whether another was reached."""

    def __init__(self) -> None:
        self.listed: list[bytearray] = []
        self.others = 0

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer each connection once, and note all that it says."""
        self.listed.append(seen := bytearray())
        while data := await reader.read(65536):
            if b"\r\n\r\n" not in seen and b"\r\n\r\n" in seen + data:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
            seen += data

    async def other(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Count a connection that should not be."""
        self.others += 1


@contextmanager
def checking() -> Iterator[Check]:
    """Run one broker, which every input is sent to."""
    with asyncio.Runner() as runner:
        stack, hosts = AsyncExitStack(), Hosts()
        found = runner.run(_begin(stack, hosts))
        token = base64.b64encode(f"samovar:{found.token}".encode()).decode()

        def check(sent: Sent) -> None:
            hosts.listed.clear()
            found.passages.clear()
            answer = runner.run(answered(found.port, bytes_of(sent, token, found.port)))
            known = (0, 100, 200, 400, 403, 404, 407, 413, 417, 431, 502)
            assert status(answer) in known, answer[:100]
            assert hosts.others == 0
            tunnel = answer.startswith(b"HTTP/1.1 200 Connection established\r\n\r\n")
            for seen in hosts.listed if not tunnel else ():
                _passed(bytes(seen), token)
            for passage in found.passages:
                allowed = passage.host == HOST and passage.port in (80, 443)
                assert allowed or passage.verdict != "passed", passage

        try:
            yield check
            assert status(runner.run(_served(found))) == 200
        finally:
            runner.run(stack.aclose())


async def _begin(stack: AsyncExitStack, hosts: Hosts) -> Tooled:
    other = await stack.enter_async_context(served(hosts.other))
    port = await stack.enter_async_context(served(hosts.serve))
    names = {HOST: ("127.0.0.1", port), OTHER: ("127.0.0.1", other)}
    return await stack.enter_async_context(tooled(names=names))


async def _served(found: Tooled) -> bytes:
    """Return the answer of a request that passes."""
    reader, writer = await found.streams(found.get())
    try:
        return await asyncio.wait_for(reader.readuntil(b"page"), BOUND)
    finally:
        writer.close()


def _passed(seen: bytes, token: str) -> None:
    """Check a request that reached the host; it may have broken off."""
    head, end, _ = seen.partition(b"\r\n\r\n")
    if not end:
        assert not seen
        return
    line, *lines = head.decode("latin-1").split("\r\n")
    headers = [
        (name.lower(), value.strip()) for name, _, value in (h.partition(":") for h in lines)
    ]
    assert line.split(" ")[1].startswith("/")
    assert len(line.split(" ")) == 3
    assert [value for name, value in headers if name == "host"] == [HOST]
    assert [value for name, value in headers if name == "connection"] == ["close"]
    lengths = [name for name, _ in headers if name in ("content-length", "transfer-encoding")]
    assert len(lengths) <= 1
    assert not [name for name, _ in headers if name.startswith("proxy-")]
    assert not {"te", "keep-alive", "upgrade", "trailer"} & {name for name, _ in headers}
    assert token.encode() not in seen


def draw(draw: Random) -> Sent:
    """Draw what is sent: a request that passes, with a few things changed."""
    headers = [(f"host: {HOST}", "\r\n"), ("content-length: {length}", "\r\n"), (PASSWORD, "\r\n")]
    for _ in range(draw.choice((0, 0, 1, 1, 2, 4))):
        place = draw.randint(0, len(headers))
        line = draw.choice(MORE if draw.random() < 0.5 else HEADERS)
        headers.insert(place, (line, draw.choice(ENDS)))
    if draw.random() < 0.1:
        headers.pop(draw.randrange(len(headers)))
    line = draw.choice(LINES) if draw.random() < 0.6 else LINES[0]
    if draw.random() < 0.1:
        line = edited(draw, line.encode()).decode("latin-1")
    behind = (
        f"GET http://{OTHER}/ HTTP/1.1\r\nhost: {OTHER}\r\nproxy-authorization: Basic {{token}}"
    )
    return Sent(
        line,
        headers,
        draw.choice(BODIES),
        f"{behind}\r\n\r\n".encode() if draw.random() < 0.3 else b"",
        [draw.randrange(1000) for _ in range(draw.choice((0, 0, 1, 3)))],
    )


TARGET = Target("proxy", Sent, draw, checking)
