"""What passes the broker, in which form, and what it does when a side fails."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from structlog.testing import capture_logs
from support.brokered import CANARY, JSON, Tenants, brokered, hello, status
from support.service import until
from support.timeouts import BOUND

from samovard.agent.broker import keys, passing, rules
from samovard.agent.credentials import Kind


def told(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), BOUND))


def test_a_request_passes_with_its_tenants_credential() -> None:
    """Whatever credential the agent sends; the body and the query are as they were."""

    async def story() -> None:
        async with brokered() as found:
            body = b'{"odd":  "spacing\\u00e9"}'
            head = JSON + b"x-api-key: mine\r\nauthorization: Bearer mine\r\ncookie: a=b\r\n"
            path = f"{found.path}?beta=true"
            assert status(await found.raw(found.request(body, head, path))) == 200
            (seen,) = found.seen
            assert (seen.path, seen.body) == ("/v1/messages?beta=true", body)
            assert seen.all("x-api-key") == [CANARY]
            assert seen.all("authorization") == seen.all("cookie") == []
            (exchange,) = found.exchanges
            assert (exchange.tenant, exchange.profile, exchange.result) == (
                "acme",
                "default",
                "2xx",
            )
            assert exchange.tokens == {"input": 3, "output": 5}

    told(story)


def test_an_oauth_token_is_sent_as_a_bearer() -> None:
    """And no key beside it."""

    async def story() -> None:
        async with brokered(provider=Tenants(Kind.OAUTH_TOKEN)) as found:
            await found.raw(found.request())
            assert found.seen[0].all("authorization") == [f"Bearer {CANARY}"]
            assert found.seen[0].all("x-api-key") == []

    told(story)


def test_another_processes_address_is_of_no_use() -> None:
    """Its port without its token, and its token at another port."""

    async def story() -> None:
        async with brokered() as found:
            other = await found.open("globex")
            token = other.url.rsplit("/", 1)[1]
            for path in (f"/{token}/v1/messages", "/v1/messages", "/x/v1/messages"):
                assert status(await found.raw(found.request(path=path))) == 404
            assert found.seen == []

    told(story)


def test_an_agent_is_served_while_it_works_and_with_a_tenant() -> None:
    """Before, and afterwards, and without a tenant, it spends nothing."""

    async def story() -> None:
        async with brokered() as found:
            found.address.allow(open=False)
            assert status(await found.raw(found.request())) == 403
            found.address.allow(open=True)
            assert status(await found.raw(found.request())) == 200
            found.address = await found.open("")
            assert status(await found.raw(found.request())) == 403
            found.address.bind("acme")
            with pytest.raises(ValueError, match="bound"):
                found.address.bind("globex")
            assert status(await found.raw(found.request())) == 200
            assert len(found.seen) == 2

    told(story)


def test_a_body_that_is_too_large_is_refused_unread() -> None:
    """By its length; nothing is sent on."""

    async def story() -> None:
        async with brokered() as found:
            length = b"content-length: %d" % (rules.MAX_BODY + 1)
            answer = await found.raw(found.request().replace(b"content-length: 2", length))
            assert status(answer) == 413
            assert json.loads(answer.split(b"\r\n\r\n")[1])["error"]["type"] == "request_too_large"
            assert found.seen == []

    told(story)


def test_a_renewed_credential_is_used_within_a_second() -> None:
    """No restart, and no address of another kind; the provider is not asked for each request."""

    async def story() -> None:
        async with brokered() as found:
            await found.raw(found.request())
            found.provider.values["acme"] = "sk-renewed"
            begin = time.monotonic()
            while found.seen[-1].all("x-api-key") != ["sk-renewed"]:
                await found.raw(found.request())
            assert time.monotonic() - begin < BOUND / 2
            assert found.provider.asked < len(found.seen)

    told(story)


def test_a_refused_credential_is_fetched_again_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one makes the CLI ask again; the same one leaves the API's answer as it is."""
    monkeypatch.setattr(keys, "KEPT", 0.0)

    async def refuse(request: web.BaseRequest) -> web.StreamResponse:
        if request.headers["x-api-key"] == "sk-renewed":
            return await hello(request)
        await asyncio.wait_for(both.wait(), BOUND)
        return web.json_response({"error": "theirs"}, status=401)

    async def story() -> None:
        provider = Tenants(kept={"acme": CANARY}, values={"acme": "sk-renewed"})
        async with brokered(refuse, provider) as found:
            asked = [asyncio.create_task(found.raw(found.request())) for _ in range(5)]
            await until(lambda: len(found.seen) == 5)
            both.set()
            answers = await asyncio.gather(*asked)
            assert {status(answer) for answer in answers} == {503}
            assert all(b"Retry-After: 1" in answer for answer in answers)
            assert provider.fresh == 1
            assert status(await found.raw(found.request())) == 200
            provider.values["acme"] = "sk-wrong"
            answer = await found.raw(found.request())
            assert status(answer) == 401
            assert b"theirs" in answer

    both = asyncio.Event()
    told(story)


def test_a_tenant_without_a_credential_is_told_so() -> None:
    """As the API says it; nothing is sent without one."""

    class None_(Tenants):
        async def get(self, tenant: str, *, fresh: bool = False) -> Any:
            raise rules_missing()

    def rules_missing() -> Exception:
        from samovard.core.errors import Misconfigured

        return Misconfigured("none", cause="credential-missing")

    async def story() -> None:
        async with brokered(provider=None_()) as found:
            assert status(await found.raw(found.request())) == 401
            assert found.seen == []
            assert [exchange.result for exchange in found.exchanges] == ["no_credential"]

    told(story)


@pytest.mark.parametrize("code", [302, 429, 500, 529])
def test_what_the_api_answers_is_passed_on(code: int) -> None:
    """With its own words and the time to wait; never followed elsewhere."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        headers = {"retry-after": "7", "location": "http://evil/", "set-cookie": "a=b"}
        return web.Response(status=code, text="their words", headers=headers)

    async def story() -> None:
        async with brokered(answer) as found:
            got = await found.raw(found.request())
            assert status(got) == code
            assert b"their words" in got
            assert b"retry-after: 7" in got.lower()
            assert b"evil" not in got
            assert b"cookie" not in got.lower()
            assert len(found.seen) == 1

    told(story)


async def begun(request: web.BaseRequest, size: int = 0) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b"data: first\n\n" + b"x" * size)
    return response


def test_each_piece_passes_as_soon_as_it_is_there() -> None:
    """The reader has the first one while the second does not exist yet."""
    second = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await begun(request)
        await asyncio.wait_for(second.wait(), BOUND)
        await response.write(b"data: second\n\n")
        return response

    async def story() -> None:
        async with brokered(answer) as found:
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            writer.write(found.request())
            await asyncio.wait_for(reader.readuntil(b"data: first\n\n"), BOUND)
            second.set()
            assert b"data: second" in await asyncio.wait_for(reader.read(), BOUND)
            writer.close()

    told(story)


def test_an_api_that_dies_in_an_answer_breaks_it_off() -> None:
    """The reader must not take a part for the whole."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await begun(request)
        assert request.transport is not None
        request.transport.close()
        return response

    async def story() -> None:
        async with brokered(answer) as found:
            got = await found.raw(found.request())
            assert b"data: first" in got
            assert not got.endswith(b"0\r\n\r\n")

    told(story)


def test_an_api_that_falls_silent_is_given_up() -> None:
    """Before its answer, and in it; the next request is served."""
    hangs = True

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if not hangs:
            return await hello(request)
        if b"begin" in await request.read():
            await begun(request)
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        nonlocal hangs
        async with brokered(answer, silence_timeout=0.2) as found:
            assert await found.raw(found.request()) == b""
            assert found.exchanges[0].result == "unreached"
            assert not (await found.raw(found.request(b"begin"))).endswith(b"0\r\n\r\n")
            hangs = False
            assert status(await found.raw(found.request())) == 200

    told(story)


def test_an_api_that_is_not_there_is_told_once() -> None:
    """To the operator with the reason, to the agent by an end without an answer."""

    async def story() -> None:
        async with brokered() as found:
            from samovard.agent.broker.upstream import Upstream

            gone = found.broker._clients
            gone.upstream = Upstream("http://127.0.0.1:9")
            found.address = await found.open()
            for _ in range(2):
                assert await found.raw(found.request()) == b""

    with capture_logs() as lines:
        told(story)
    assert [(line["event"], line["why"]) for line in lines] == [
        ("broker.unreached", "Connection refused")
    ]


def test_a_request_that_its_agent_leaves_is_ended_at_the_api() -> None:
    """It would go on costing money."""
    ended = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        try:
            await begun(request)
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    async def story() -> None:
        async with brokered(answer) as found:
            reader, writer = await asyncio.open_connection("127.0.0.1", found.port)
            writer.write(found.request())
            await asyncio.wait_for(reader.readuntil(b"first"), BOUND)
            writer.close()
            await asyncio.wait_for(ended.wait(), BOUND)

    told(story)


def test_a_reader_that_takes_nothing_is_dropped_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waits for it is bounded, whatever the API has to say."""
    monkeypatch.setattr(passing, "READER_TIMEOUT", 0.3)
    written = 0

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal written
        if await request.read() != b"much":
            return await hello(request)
        response = await begun(request)
        while True:
            await response.write(b"x" * 65536)
            written += 65536

    async def story() -> None:
        async with brokered(answer) as found:
            _, writer = await asyncio.open_connection("127.0.0.1", found.port, limit=1)
            writer.write(found.request(b"much"))
            await until(lambda: written > 0)
            assert status(await found.raw(found.request())) == 200
            await until(lambda: len(found.exchanges) == 2)
            assert written < 32 << 20
            writer.close()

    told(story)


def test_a_body_that_does_not_come_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is ended, and others are served meanwhile."""
    monkeypatch.setattr(passing, "BODY_TIMEOUT", 0.3)

    async def story() -> None:
        async with brokered() as found:
            slow = found.request(b"x" * 100)[:-50]
            waits = asyncio.create_task(found.raw(slow))
            assert status(await found.raw(found.request())) == 200
            assert await waits == b""

    told(story)


def test_one_agent_has_fifty_streams_and_no_more() -> None:
    """The next one is told to come back; another agent has its own."""
    go = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        response = await begun(request)
        await go.wait()
        return response

    async def story() -> None:
        async with brokered(answer) as found:
            first = found.address
            streams = [asyncio.create_task(found.raw(found.request())) for _ in range(50)]
            await until(lambda: len(found.seen) == 50)
            refused = await found.raw(found.request())
            assert status(refused) == 429
            assert b"Retry-After: 1" in refused
            found.address = await found.open("acme")
            other = asyncio.create_task(found.raw(found.request()))
            await until(lambda: len(found.seen) == 51)
            go.set()
            answers = await asyncio.gather(*streams, other)
            assert all(answer.endswith(b"0\r\n\r\n") for answer in answers)
            found.address = first
            assert status(await found.raw(found.request())) == 200

    told(story)
