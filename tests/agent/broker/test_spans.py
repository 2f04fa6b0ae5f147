"""Agents' spans through the broker: to the collector and nowhere else, whole, without a key."""

import asyncio
import gzip
import os

import pytest
from aiohttp import web
from support.brokered import CANARY, brokered, hello, status

from samovard.agent.broker.spans import MAX_BODY, PATH

PROTOBUF = b"content-type: application/x-protobuf\r\ncontent-encoding: gzip\r\n"


def test_spans_reach_the_collector_without_a_turn() -> None:
    """As they were sent, with no credential; the collector's status is the answer."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=202, body=b"told")

    async def story() -> None:
        async with brokered(answer, traces=True) as found:
            found.address.allow(open=False)
            body = os.urandom(256_000)
            path = found.path.replace("/v1/messages", PATH)
            head = PROTOBUF + b"authorization: Bearer x\r\nx-api-key: y\r\ncookie: z\r\n"
            told = await found.raw(found.request(gzip.compress(body), head, path))
            assert status(told) == 202
            assert b"told" not in told
            (seen,) = found.seen
            assert (seen.path, seen.body) == (PATH, body)
            assert seen.all("content-type") == ["application/x-protobuf"]
            assert seen.all("content-encoding") == ["gzip"]
            values = {value for _, value in seen.headers}
            assert not values & {"Bearer x", "y", "z", CANARY}
            assert found.provider.asked == 0

    asyncio.run(story())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("/v1/traces", "/v1/logs"), 404),
        (("/v1/traces", "/v1/traces?x"), 404),
        (("/v1/traces", "/v1/%74races"), 404),
        (("samovar_broker_", "samovar_broker_0"), 404),
    ],
)
def test_nothing_but_spans_goes_to_the_collector(change: tuple[str, str], expected: int) -> None:
    """By the path as it was sent, with the address's own token."""

    async def story() -> None:
        async with brokered(traces=True) as found:
            path = found.path.replace("/v1/messages", PATH).replace(*change)
            assert status(await found.raw(found.request(path=path))) == expected
            assert not found.seen

    asyncio.run(story())


def test_without_a_collector_there_are_no_spans() -> None:
    """The API does not get them instead."""

    async def story() -> None:
        async with brokered() as found:
            path = found.path.replace("/v1/messages", PATH)
            assert status(await found.raw(found.request(path=path))) == 404
            assert not found.seen

    asyncio.run(story())


def test_an_export_is_bounded() -> None:
    """By what it says that it has."""

    async def story() -> None:
        async with brokered(traces=True) as found:
            path = found.path.replace("/v1/messages", PATH)
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {MAX_BODY + 1}\r\n\r\n"
            assert status(await found.raw(head.encode())) == 400
            assert not found.seen

    asyncio.run(story())


def test_a_collector_that_is_gone_costs_the_agent_an_answer() -> None:
    """Its exporter is told, and requests to the API go on."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == PATH:
            assert request.transport is not None
            request.transport.close()
        return await hello(request)

    async def story() -> None:
        async with brokered(answer, traces=True) as found:
            path = found.path.replace("/v1/messages", PATH)
            assert status(await found.raw(found.request(path=path))) == 503
            assert status(await found.raw(found.request())) == 200

    asyncio.run(story())
