"""The bytes that an agent sends to its address of the credential broker.

What reaches the API, or an MCP server, is looked at there: whatever came, it is one of its
requests, with the credential for it and no other, and nothing of a credential comes back.
"""

import asyncio
import itertools
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from msgspec import Struct
from support.brokered import CANARY, Seen, brokered, status

from fuzz.drawing import edited
from fuzz.target import Check, Target
from samovard.agent.broker import rules

SECRET = "Bearer canary-of-tickets"
SERVER = "/tickets"  # its path at the stand-in, which is the API and the server
#: What reaches an MCP server, written down once more.
OF_A_SERVER = {
    "accept",
    "accept-encoding",
    "authorization",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "user-agent",
    "x-team",
}
#: A request that is not whole has no answer. Both ends are in one loop: on a busy machine it is not
#: the time that tells whether one would have come, but what the loop had a chance to do.
PATIENCE, ROUNDS = 0.02, 100  # seconds, and rounds of the loop
TOKEN, PORT = "{token}", "{port}"
LINES = (
    f"POST /{TOKEN}/v1/messages HTTP/1.1",
    f"POST /{TOKEN}/v1/messages?beta=true HTTP/1.1",
    f"POST /{TOKEN}/v1/messages/count_tokens HTTP/1.1",
    f"POST /{TOKEN}/v1/%6dessages HTTP/1.1",
    f"POST /{TOKEN}/v1/../v1/messages HTTP/1.1",
    f"POST //{TOKEN}/v1/messages HTTP/1.1",
    f"POST /{TOKEN}/v1/files HTTP/1.1",
    f"POST http://127.0.0.1:{PORT}/{TOKEN}/v1/messages HTTP/1.1",
    f"POST /{TOKEN}/v1/messages HTTP/1.0",
    f"POST /{TOKEN}/v1/messages",
    f"GET /{TOKEN}/v1/messages HTTP/1.1",
    f"CONNECT 127.0.0.1:{PORT} HTTP/1.1",
    "OPTIONS * HTTP/1.1",
    "POST /v1/messages HTTP/1.1",
    "PRI * HTTP/2.0",
    f"POST /{TOKEN}/mcp/tickets HTTP/1.1",
    f"GET /{TOKEN}/mcp/tickets HTTP/1.1",
    f"DELETE /{TOKEN}/mcp/tickets HTTP/1.1",
    f"PUT /{TOKEN}/mcp/tickets HTTP/1.1",
    f"POST /{TOKEN}/mcp/tickets HTTP/1.0",
    f"POST /{TOKEN}/mcp/tickets/ HTTP/1.1",
    f"POST /{TOKEN}/mcp/tickets?all=b HTTP/1.1",
    f"POST /{TOKEN}/mcp/tickets/../../v1/messages HTTP/1.1",
    f"POST /{TOKEN}/mcp/../mcp/tickets HTTP/1.1",
    f"POST /{TOKEN}/mcp/%74ickets HTTP/1.1",
    f"POST /{TOKEN}/mcp/Tickets HTTP/1.1",
    f"POST /{TOKEN}/mcp/open HTTP/1.1",
    f"POST /{TOKEN}/mcp/ HTTP/1.1",
    f"POST http://127.0.0.1:{PORT}/{TOKEN}/mcp/tickets HTTP/1.1",
    "POST /mcp/tickets HTTP/1.1",
    "POST /samovar_broker_0/mcp/tickets HTTP/1.1",
)
HEADERS = (
    "content-length: {length}",
    "content-length: {length}",
    "content-length: 0",
    "content-length: 1",
    "content-length: 99999999999999999999",
    "content-length: -1",
    "content-length: 0x2",
    "content-length : 2",
    "transfer-encoding: chunked",
    "transfer-encoding: identity, chunked",
    "Transfer-Encoding:\tchunked",
    "connection: close",
    "connection: upgrade",
    "connection: keep-alive, x-api-key",
    "upgrade: h2c",
    "upgrade: websocket",
    "expect: 100-continue",
    "host: evil.test",
    "x-api-key: mine",
    "authorization: Bearer mine",
    "cookie: a=b",
    "proxy-authorization: Basic x",
    "x-forwarded-host: evil.test",
    "content-encoding: gzip",
    "anthropic-beta: one,two",
    "anthropic-version: 2023-06-01",
    "anthropic-x-api-key: mine",
    "x-stainless-lang: js",
    "accept-encoding: gzip",
    "te: trailers",
    " folded: yes",
    ": nameless",
    "x" * 9000 + ": y",
    "anthropic-long: " + "x" * 9000,
)
#: Of requests to an MCP server, besides.
OF_SERVERS = (
    "accept: text/event-stream",
    "content-type: application/json",
    "last-event-id: 1",
    "mcp-protocol-version: 2025-06-18",
    "mcp-session-id: mine",
    "mcp-session-id: \xe9",
    "mcp-other: a",
    "x-team: red",
)
ENDS = (*["\r\n"] * 40, "\n", "\r", "\r\n ", "\0\r\n")
BODIES = (b"", b"{}", b'{"model": "haiku"}', b"0\r\n\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"\x1f\x8b\x08")


class Sent(Struct, frozen=True):
    """What an agent sends: in order a line, headers, each with its end, and a body; more behind it.

    `cuts` are where the bytes are parted, in shares of a thousand.
    """

    line: str
    headers: list[tuple[str, str]]
    body: bytes
    more: bytes
    cuts: list[int]


def bytes_of(sent: Sent, token: str, port: int) -> list[bytes]:
    """Return the pieces of what is sent."""
    head = sent.line + "\r\n" + "".join(line + end for line, end in sent.headers) + "\r\n"
    filled = head.replace(TOKEN, token).replace(PORT, str(port))
    data = filled.replace("{length}", str(len(sent.body))).encode("latin-1")
    data += sent.body + sent.more.replace(b"{token}", token.encode())
    places = sorted({0, len(data), *(cut * len(data) // 1000 for cut in sent.cuts)})
    return [data[begin:end] for begin, end in itertools.pairwise(places)]


@contextmanager
def checking() -> Iterator[Check]:
    """Run one broker, which every input is sent to."""
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:
        secret = Path(directory) / "secret"
        secret.touch(mode=0o600)
        secret.write_text(SECRET)
        context = brokered(secret=secret)
        found = runner.run(context.__aenter__())
        token = found.address.url.rsplit("/", 1)[1]

        def check(sent: Sent) -> None:
            found.seen.clear()
            found.exchanges.clear()
            answer = runner.run(answered(found.port, bytes_of(sent, token, found.port)))
            assert CANARY.encode() not in answer
            assert SECRET.encode() not in answer
            assert status(answer) in (0, 100, 200, 400, 404, 407, 413, 417, 431), answer[:100]
            for seen in found.seen:
                (_passed_to_server if seen.path.startswith(SERVER) else _passed)(seen)

        try:
            yield check
            to_server = found.request(path=f"/{token}/mcp/tickets")
            for request in (found.request(), to_server):
                assert status(runner.run(found.raw(request))) == 200
            assert found.seen[-1].all("authorization") == [SECRET]
        finally:
            runner.run(context.__aexit__(None, None, None))


async def answered(port: int, pieces: list[bytes]) -> bytes:
    """Send pieces to an address, and return what comes back for a moment."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    reading = asyncio.create_task(reader.read(65536))
    with suppress(OSError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        begin, rounds = time.monotonic(), 0
        while rounds < ROUNDS or time.monotonic() < begin + PATIENCE:
            await asyncio.sleep(0 if rounds < ROUNDS else 0.001)
            rounds += 1
            if reading.done():
                if not (piece := reading.result()):
                    break
                answer += piece
                reading = asyncio.create_task(reader.read(65536))
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    writer.transport.abort()
    return answer


def _passed(seen: Seen) -> None:
    """Check a request that reached the API."""
    path, _, query = seen.path.partition("?")
    assert path in rules.PATHS
    assert re.fullmatch(r"[\w.~=&%-]*", query, re.ASCII)
    assert seen.all("x-api-key") == [CANARY]
    assert seen.all("content-length") == [str(len(seen.body))]
    assert seen.all("accept-encoding") == ["identity"]
    _one_host(seen)
    for name, _ in seen.headers:
        known = name.lower() in {*rules._REQUEST, "x-api-key", "content-length", "host"}
        known |= name.lower() == "accept-encoding"
        assert known or name.lower().startswith(("anthropic-", "x-stainless-", "x-claude-code-"))


def _passed_to_server(seen: Seen) -> None:
    """Check a request that reached the MCP server."""
    assert seen.path == f"{SERVER}?all=%61"
    assert seen.all("authorization") == [SECRET]
    assert seen.all("x-team") == ["blue"]
    assert not [value for _, value in seen.headers if CANARY in value]
    assert len(seen.all("content-length")) <= 1
    assert seen.all("accept-encoding") == ["identity"]
    _one_host(seen)
    for name, _ in seen.headers:
        assert name.lower() in OF_A_SERVER, name


def _one_host(seen: Seen) -> None:
    assert len(seen.all("host")) == 1
    assert "evil" not in seen.all("host")[0]


def draw(draw: Random) -> Sent:
    """Draw what is sent: a request that passes, with a few things changed."""
    headers = [("host: x", "\r\n"), ("content-length: {length}", "\r\n")]
    for _ in range(draw.choice((0, 0, 1, 1, 2, 4))):
        place = draw.randint(0, len(headers))
        known = OF_SERVERS if draw.random() < 0.2 else HEADERS
        headers.insert(place, (draw.choice(known), draw.choice(ENDS)))
    if draw.random() < 0.1:
        headers.pop(draw.randrange(len(headers)))
    headers.append(("connection: close", "\r\n"))
    line = draw.choice(LINES) if draw.random() < 0.6 else LINES[0]
    if draw.random() < 0.1:
        line = edited(draw, line.encode()).decode("latin-1")
    behind = f"{LINES[0]}\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}"
    return Sent(
        line,
        headers,
        draw.choice(BODIES),
        behind.encode() if draw.random() < 0.3 else b"",
        [draw.randrange(1000) for _ in range(draw.choice((0, 0, 1, 3)))],
    )


TARGET = Target("broker", Sent, draw, checking)
