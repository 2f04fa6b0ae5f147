"""Which address a name leads to: looked up once, looked at, and that very one is reached."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from contract.test_tls import certificate
from support.brokered import status
from support.connect_proxy import ConnectProxy
from support.timeouts import BOUND
from support.tooled import HOST, Tooled, echo, served, tooled

from samovard.agent.broker import ways
from samovard.agent.broker.upstream import Upstream

GOOD, BAD = "127.0.0.2", "127.0.0.1"  # stand for an address of the Internet and one of ours


def told(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), BOUND))


class NameServer:
    """The answers for names, one after another, the last for ever. `asked` are the names."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = [*answers]
        self.asked: list[str] = []

    def getaddrinfo(self, host: str, port: int, *rest: Any, **more: Any) -> list[Any]:
        self.asked.append(host)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if not answer:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in answer]


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Callable[..., NameServer]:
    def begin(*answers: list[str]) -> NameServer:
        found = NameServer(*answers)
        monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
        monkeypatch.setattr(ways, "is_public", lambda text: text == GOOD)
        return found

    return begin


async def reaches(found: Tooled, port: int) -> bool:
    """True if a tunnel to the host leads to the server at a port; else it is refused as barred."""
    reader, writer = await found.streams(found.connect(f"{HOST}:{port}"))
    head = await reader.readuntil(b"\r\n\r\n")
    if status(head) == 200:
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
    else:
        assert status(head) == 403
        assert (
            await reader.read()
            == f"{HOST} has no public address, so it may not be reached.\n".encode()
        )
    writer.close()
    return status(head) == 200


@pytest.mark.parametrize(
    ("answer", "served_at", "reached"),
    [([GOOD], GOOD, True), ([BAD, "10.0.0.1", GOOD], GOOD, True), ([BAD], BAD, False)],
)
def test_an_address_of_a_network_of_its_own_is_not_reached(
    name_server: Callable[..., NameServer], answer: list[str], served_at: str, *, reached: bool
) -> None:
    """Though its name is listed; another address of the name is."""

    async def story() -> None:
        async with served(echo, served_at) as port:
            names = name_server(answer)
            async with tooled(names={}, hosts=(f"{HOST}:{port}",)) as found:
                assert await reaches(found, port) is reached
            assert names.asked.count(HOST) == 1

    told(story)


def test_a_name_that_leads_elsewhere_the_second_time_is_reached_where_it_led_first(
    name_server: Callable[..., NameServer],
) -> None:
    """It is looked up once for each connection, and again for the next."""

    async def story() -> None:
        async with served(echo, GOOD) as port:
            names = name_server([GOOD], [BAD])
            async with tooled(names={}, hosts=(f"{HOST}:{port}",)) as found:
                assert await reaches(found, port)
                assert names.asked.count(HOST) == 1
                assert not await reaches(found, port)

    told(story)


def test_an_address_that_does_not_answer_is_passed_over(
    name_server: Callable[..., NameServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next of the name is tried."""

    async def story() -> None:
        async with served(echo, GOOD) as port:
            name_server(["127.0.0.3", GOOD])
            monkeypatch.setattr(ways, "is_public", lambda text: text in ("127.0.0.3", GOOD))
            async with tooled(names={}, hosts=(f"{HOST}:{port}",)) as found:
                assert await reaches(found, port)

    told(story)


def test_a_name_that_nobody_knows_is_told(name_server: Callable[..., NameServer]) -> None:
    """As what was not reached."""

    async def story() -> None:
        name_server([])
        async with tooled(names={}) as found:
            assert status(await found.raw(found.connect())) == 502
            assert [passage.verdict for passage in found.passages] == ["unreached"]

    told(story)


def test_a_name_server_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For longer than a connection may take; the broker ends meanwhile."""
    answers = threading.Event()

    def getaddrinfo(*_: Any, **__: Any) -> list[Any]:
        answers.wait(BOUND)
        return []

    async def story() -> None:
        upstream = Upstream("http://127.0.0.1:9", connect_timeout=0.05)
        async with tooled(names={}, upstream=upstream) as found:
            monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
            assert status(await found.raw(found.connect())) == 504
            assert [passage.verdict for passage in found.passages] == ["late"]

    try:
        told(story)
    finally:
        answers.set()


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("proxy", ["", "http://127.0.0.1:9"])
def test_a_listed_address_of_a_network_of_its_own_is_not_reached(address: str, proxy: str) -> None:
    """Neither directly nor by the operator's proxy."""

    async def story() -> None:
        upstream = Upstream("http://127.0.0.1:9", proxy)
        async with tooled(hosts=(address,), names={}, upstream=upstream) as found:
            assert status(await found.raw(found.connect(f"{address}:80"))) == 403
            assert [passage.verdict for passage in found.passages] == ["barred"]

    told(story)


async def proxied(
    answer: bytes, hosts: tuple[str, ...] = (HOST,), **more: Any
) -> tuple[bytes, list[bytes], list[str]]:
    """Ask for a tunnel by a proxy; return what came, what the proxy was asked, and the verdicts."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        if answer.startswith(b"HTTP/1.1 200 OK"):
            await echo(reader, writer)

    async with served(serve) as port:
        upstream = Upstream("http://127.0.0.1:9", f"http://127.0.0.1:{port}", **more)
        async with tooled(names={}, hosts=hosts, upstream=upstream) as found:
            reader, writer = await found.streams(found.connect() + b"early")
            writer.write_eof()
            came = await reader.read()
            writer.close()
        return came, asked, [passage.verdict for passage in found.passages]


def test_the_operators_proxy_leads_to_a_host_by_its_name() -> None:
    """Nothing of the tool's request goes there, its password above all."""

    async def story() -> None:
        came, asked, verdicts = await proxied(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\nhello ")
        assert came == b"HTTP/1.1 200 Connection established\r\n\r\nhello early"
        assert asked == [b"CONNECT files.example:443 HTTP/1.1\r\nHost: files.example:443\r\n\r\n"]
        assert verdicts == ["passed"]

    told(story)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 403 Forbidden\r\n\r\n", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200", b"", b"x" * 20_000],
)
def test_an_operators_proxy_that_does_not_agree_is_told(answer: bytes) -> None:
    """Whatever it says instead, none of which passes."""

    async def story() -> None:
        came, _, verdicts = await proxied(answer)
        assert status(came) == 502
        assert came.endswith(b"\r\n\r\nfiles.example with port 443 was not reached.\n")
        assert verdicts == ["unreached"]

    told(story)


def test_hosts_without_the_operators_proxy_are_reached_directly(
    name_server: Callable[..., NameServer],
) -> None:
    """Their addresses are looked at then."""

    async def story() -> None:
        name_server([BAD])
        came, asked, verdicts = await proxied(b"", no_proxy=(".example",))
        assert (status(came), asked, verdicts) == (403, [], ["barred"])

    told(story)


def test_a_tool_speaks_tls_through_both(directory: Path) -> None:
    """With the certificate of whom it reaches there."""
    pair = certificate(directory, "files", HOST)

    async def story() -> None:
        async with served(echo) as port, ConnectProxy(pair, f"http://127.0.0.1:{port}") as proxy:
            upstream = Upstream("http://127.0.0.1:9", proxy.url)
            async with tooled(names={}, upstream=upstream) as found:
                reader, writer = await found.tunnel()
                context = ssl.create_default_context(cafile=str(pair[0]))
                await writer.start_tls(context, server_hostname=HOST)
                writer.write(b"GET /x HTTP/1.1\r\n\r\n")
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"GET /x ")
                writer.transport.abort()
            assert (proxy.tunnels, proxy.paths) == ([f"{HOST}:443"], ["/x"])

    told(story)
