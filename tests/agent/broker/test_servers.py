"""Requests to MCP servers through the broker: to their address alone, with the secret headers."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from support.brokered import JSON, Answer, Brokered, brokered, hello, status
from support.timeouts import BOUND

from samovard.agent.broker.servers import MAX_AT_ONCE, MAX_BODY

SECRET = "Bearer canary-of-tickets"
Story = Callable[[Brokered], Awaitable[None]]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "ticket"
    path.touch(mode=0o600)
    path.write_text(f"{SECRET}\n")
    return path


def told(secret: Path, story: Story, answer: Answer = hello) -> None:
    async def tell() -> None:
        async with brokered(answer, secret=secret) as found:
            found.address.allow(open=False)
            await story(found)

    asyncio.run(tell())


def asking(found: Brokered, body: bytes = b"{}", head: bytes = b"", name: str = "tickets") -> bytes:
    return found.request(body, head, found.path.replace("/v1/messages", f"/mcp/{name}"))


@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
def test_a_request_reaches_the_servers_address(secret: Path, method: str) -> None:
    """As it is configured, whether a turn runs or not, with its headers and none of the agent's
    own credentials."""
    head = (
        JSON + b"authorization: Bearer mine\r\ncookie: a=b\r\nx-api-key: y\r\nx-team: red\r\n"
        b"mcp-session-id: one\r\nmcp-protocol-version: two\r\nlast-event-id: three\r\n"
    )

    async def story(found: Brokered) -> None:
        body = b"{}" if method == "POST" else b""
        sent = asking(found, body, head).replace(b"POST", method.encode())
        assert status(await found.raw(sent)) == 200
        (seen,) = found.seen
        assert (seen.path, seen.body) == ("/tickets?all=%61", body)
        assert (seen.all("authorization"), seen.all("x-team")) == ([SECRET], ["blue"])
        assert seen.all("mcp-session-id") == ["one"]
        assert seen.all("mcp-protocol-version") == ["two"]
        assert seen.all("last-event-id") == ["three"]
        assert not {"cookie", "x-api-key"} & {name.lower() for name, _ in seen.headers}
        assert found.provider.asked == 0

    told(secret, story)


@pytest.mark.parametrize("name", ["open", "none", "", "tickets/", "tickets?x", "%74ickets"])
def test_nothing_but_a_server_with_secrets_is_reached(secret: Path, name: str) -> None:
    """By its name as it is written."""

    async def story(found: Brokered) -> None:
        assert status(await found.raw(asking(found, name=name))) == 404
        other = asking(found).replace(b"samovar_broker_", b"samovar_broker_0")
        assert status(await found.raw(other)) == 404
        assert not found.seen

    told(secret, story)


def test_an_answer_has_the_headers_of_the_protocol(secret: Path) -> None:
    """No cookie, redirect or challenge among them; a redirect is not followed."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"mcp-session-id": "one", "retry-after": "7", "set-cookie": "evil=1"}
        more = {"www-authenticate": "Bearer evil", "location": "http://127.0.0.1:9/evil"}
        return web.Response(status=307, text="theirs", headers={**headers, **more})

    async def story(found: Brokered) -> None:
        got = (await found.raw(asking(found))).lower()
        assert status(got.upper()) == 307
        assert b"mcp-session-id: one" in got
        assert b"retry-after: 7" in got
        assert b"theirs" in got
        assert b"evil" not in got
        assert len(found.seen) == 1

    told(secret, story, answer)


def test_an_answer_passes_as_it_comes(secret: Path) -> None:
    """An event is there before the next exists; one that breaks off does not look whole."""
    second = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await asyncio.wait_for(second.wait(), BOUND)
        assert request.transport is not None
        request.transport.close()
        return response

    async def story(found: Brokered) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
        writer.write(asking(found))
        await asyncio.wait_for(reader.readuntil(b"data: first\n\n"), BOUND)
        second.set()
        assert not (await asyncio.wait_for(reader.read(), BOUND)).endswith(b"0\r\n\r\n")
        writer.close()

    told(secret, story, answer)


def test_a_secret_is_read_for_each_request(secret: Path) -> None:
    """A replaced one is sent by the next; one that is gone is told once, and no request is sent."""

    async def story(found: Brokered) -> None:
        await found.raw(asking(found))
        secret.write_text("Bearer renewed")
        await found.raw(asking(found))
        assert [seen.all("authorization") for seen in found.seen] == [[SECRET], ["Bearer renewed"]]
        secret.unlink()
        for _ in range(2):
            assert status(await found.raw(asking(found))) == 502
        assert len(found.seen) == 2

    with capture_logs() as lines:
        told(secret, story)
    (line,) = lines
    assert (line["event"], line["server"]) == ("mcp.unreached", "tickets")


def test_a_server_that_is_gone_costs_an_answer(secret: Path) -> None:
    """The model's API is asked all the same."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/tickets":
            assert request.transport is not None
            request.transport.close()
        return await hello(request)

    async def story(found: Brokered) -> None:
        assert status(await found.raw(asking(found))) == 502
        found.address.allow(open=True)
        assert status(await found.raw(found.request())) == 200

    told(secret, story, answer)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"POST", b"PUT", 400),
        (b"POST", b"GET", 400),
        (b"content-length: 2", b"transfer-encoding: chunked", 400),
        (b"content-length: 2", b"content-length: %d" % (MAX_BODY + 1), 413),
        (b"content-length: 2", b"content-length: 2\r\nupgrade: h2c", 400),
        (b"HTTP/1.1", b"HTTP/1.0", 400),
    ],
)
def test_a_request_has_one_form_and_a_bound(
    secret: Path, old: bytes, new: bytes, expected: int
) -> None:
    """Of three methods, with a body that says how long it is and is no longer than 4 MiB."""

    async def story(found: Brokered) -> None:
        assert status(await found.raw(asking(found).replace(old, new))) == expected
        assert not found.seen

    told(secret, story)


def test_one_agent_has_sixteen_requests_and_no_more(secret: Path) -> None:
    """Another agent has its own."""
    running, all_run, end = 0, asyncio.Event(), asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal running
        running += 1
        if running == MAX_AT_ONCE:
            all_run.set()
        if running <= MAX_AT_ONCE:
            await asyncio.wait_for(end.wait(), BOUND)
        return await hello(request)

    async def story(found: Brokered) -> None:
        first = [asyncio.create_task(found.raw(asking(found))) for _ in range(MAX_AT_ONCE)]
        await asyncio.wait_for(all_run.wait(), BOUND)
        assert status(await found.raw(asking(found))) == 429
        found.address = await found.open(works=False)
        assert status(await found.raw(asking(found))) == 200
        end.set()
        assert {status(answer) for answer in await asyncio.gather(*first)} == {200}

    told(secret, story, answer)
