"""Requests that two readers may read in two ways, or that ask for something else."""

import asyncio

import pytest
from support.brokered import CANARY, Brokered, brokered, status
from support.timeouts import BOUND


def smuggled(found: Brokered) -> dict[str, bytes]:
    """Return requests that two readers may read in two ways, or that ask for something else."""
    passes, inside = found.request(), found.request(b'{"smuggled": 1}')
    post, end = f"POST {found.path} HTTP/1.1\r\nhost: x\r\n".encode(), b"\r\n"
    chunked = b"transfer-encoding: chunked\r\n"
    return {
        "both lengths": post + b"content-length: 4\r\n" + chunked + end + b"0\r\n\r\n" + inside,
        "chunks": post + chunked + end + b"2\r\n{}\r\n0\r\n\r\n",
        "two encodings": post + chunked + b"transfer-encoding: identity\r\n" + end + inside,
        "an encoding in disguise": post + b"transfer-encoding : chunked\r\n" + end + inside,
        "two lengths": post + b"content-length: 2\r\ncontent-length: 3\r\n" + end + b"{}" + inside,
        "a length that is none": post + b"content-length: +2\r\n" + end + b"{}",
        "a negative length": post + b"content-length: -1\r\n" + end,
        "no length": post + end,
        "a folded header": post + b"a: b\r\n content-length: 2\r\n" + end + b"{}",
        "a header without a name": post + b": x\r\n" + end,
        "a nul": post + b"anthropic-beta: a\0b\r\ncontent-length: 2\r\n" + end + b"{}",
        "a bare return": post + b"anthropic-beta: a\rx-api-key: b\r\ncontent-length: 0\r\n" + end,
        "two hosts": passes.replace(b"host: x", b"host: x\r\nhost: y"),
        "bytes that are no text": passes.replace(b"host: x", b"host: x\r\nanthropic-beta: \xff"),
        "an upgrade": passes.replace(b"connection: close", b"connection: upgrade\r\nupgrade: h2c"),
        "a websocket": passes.replace(
            b"connection: close", b"connection: upgrade\r\nupgrade: websocket"
        ),
        "connect": b"CONNECT api.anthropic.com:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        "another host": passes.replace(b"POST /", f"POST http://evil:{found.port}/".encode()),
        "an escaped path": passes.replace(b"/v1/messages", b"/v1/%6dessages"),
        "a path upwards": passes.replace(b"/v1/messages", b"/v1/x/../messages"),
        "another path": passes.replace(b"/v1/messages", b"/v1/files"),
        "another method": passes.replace(b"POST", b"GET"),
        "an old version": passes.replace(b"HTTP/1.1", b"HTTP/1.0"),
        "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "a long line": passes.replace(b"/v1/messages", b"/v1/messages?a=" + b"x" * 9_000),
        "a long header": passes.replace(b"host: x", b"host: x\r\nanthropic-beta: " + b"x" * 9_000),
        "many headers": passes.replace(b"host: x", b"host: x" + b"\r\nanthropic-a: b" * 200),
        "no request": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 10 + b"\r\n\r\n",
    }


NAMES = [
    *("both lengths", "chunks", "two encodings", "an encoding in disguise", "two lengths"),
    *("a length that is none", "a negative length", "no length", "a folded header"),
    *("a header without a name", "a nul", "a bare return", "two hosts", "bytes that are no text"),
    *("an upgrade", "a websocket", "connect", "another host", "an escaped path"),
    *(
        "a path upwards",
        "another path",
        "another method",
        "an old version",
        "the preface of HTTP/2",
        "a long line",
    ),
    *("a long header", "many headers", "no request"),
]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_plain_request_reaches_nothing(name: str) -> None:
    """It is refused or cut off, the API sees nothing of it, and the next request is served."""

    async def story() -> None:
        async with brokered() as found:
            answer = await found.raw(smuggled(found)[name])
            assert status(answer) in (0, 400, 404, 407), answer
            assert CANARY.encode() not in answer
            assert found.seen == []
            assert status(await found.raw(found.request())) == 200

    asyncio.run(asyncio.wait_for(story(), BOUND))


def test_requests_in_a_row_have_an_answer_each_until_one_is_refused() -> None:
    """Sent before any is answered: none is taken for another's, and what follows is not read."""

    async def story() -> None:
        async with brokered() as found:
            kept = [found.request(b"%d" % n).replace(b"connection: close\r\n", b"") for n in (1, 2)]
            wrong = kept[0].replace(b"/v1/messages", b"/v1/other")
            answer = await found.raw(kept[0] + kept[1] + wrong + found.request(b"3"))
            answers = answer.split(b"HTTP/1.1 ")[1:]
            assert [int(answer[:3]) for answer in answers] == [200, 200, 404]
            assert [seen.body for seen in found.seen] == [b"1", b"2"]

    asyncio.run(asyncio.wait_for(story(), BOUND))
