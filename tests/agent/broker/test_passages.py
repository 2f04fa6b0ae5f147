"""Which hosts an agent's tools reach, what they are told otherwise, and what is told of them."""

import asyncio
import base64
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.brokered import status
from support.service import until
from support.timeouts import BOUND
from support.tooled import HOST, Tooled, served, tooled

from samovard.agent.broker.broker import listen
from samovard.agent.broker.passages import MAX_PASSAGES, Passage
from samovard.agent.broker.upstream import Upstream


def told(story: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(story(), BOUND))


def verdicts(found: Tooled) -> list[str]:
    return [passage.verdict for passage in found.passages]


def said(answer: bytes) -> str:
    return answer.partition(b"\r\n\r\n")[2].decode()


class Pages:
    """A server of one answer. `requests` are what it was asked, each until `ends`."""

    def __init__(self, answer: bytes, ends: bytes = b"\r\n\r\n") -> None:
        self._answer = answer
        self._ends = ends
        self.requests: list[bytes] = []

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self.requests.append(await reader.readuntil(self._ends))
        writer.write(self._answer)


PAGE = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\npage"


@pytest.mark.parametrize("place", ["evil.example:443", f"{HOST}:22", f"x.{HOST}:443", "8.8.8.8:80"])
def test_a_host_that_is_not_listed_is_refused_with_the_setting(place: str) -> None:
    """In one sentence, whichever way a tool asks, and nothing is connected."""

    async def story() -> None:
        async with tooled() as found:
            for request in (found.connect(place), found.get(f"http://{place}/")):
                answer = await found.raw(request)
                assert status(answer) == 403
                host, port = place.split(":")
                assert said(answer) == (
                    f"{host} with port {port} may not be reached: "
                    "profiles.work.hosts does not list it.\n"
                )
            assert verdicts(found) == ["not_listed"] * 2

    told(story)


def test_without_a_list_no_host_is_reached() -> None:
    """The setting that would allow it is named."""

    async def story() -> None:
        async with tooled(hosts=()) as found:
            for request in (found.connect(), found.get()):
                answer = await found.raw(request)
                assert status(answer) == 403
                assert said(answer) == (
                    'No host may be reached: profiles.work.network = "hosts" would allow those '
                    "that profiles.work.hosts lists.\n"
                )
            assert found.passages == [
                Passage("acme", "work", "label", HOST, port, 0, 0, "no_hosts") for port in (443, 80)
            ]

    told(story)


@pytest.mark.parametrize(
    "credentials",
    ["", "Bearer {token}", "Basic {token}", "Basic {user}", "Basic {longer}", "Basic"],
)
def test_a_tool_without_the_password_learns_nothing(credentials: str) -> None:
    """Neither whether a host is listed, nor whether a turn runs."""

    async def story() -> None:
        async with tooled() as found:
            texts = {"user": f"me:{found.token}", "longer": f"samovar:{found.token}x"}
            values = {
                name: base64.b64encode(text.encode()).decode() for name, text in texts.items()
            }
            value = credentials.format(token=found.token, **values)
            header = f"Proxy-Authorization: {value}\r\n".encode() if value else b""
            answers = set()
            for place in (f"{HOST}:443", "evil.example:443", "127.0.0.1:22"):
                for works in (True, False):
                    found.address.allow(open=works)
                    for request in (found.connect(place), found.get(f"http://{place}/")):
                        asked = request.replace(found.authorization, header)
                        answers.add(await found.raw(asked))
            assert answers == {
                b"HTTP/1.1 407 Proxy Authentication Required\r\nConnection: close\r\n"
                b'Content-Length: 0\r\nProxy-Authenticate: Basic realm="samovar"\r\n\r\n'
            }
            assert set(verdicts(found)) == {"unauthenticated"}

    told(story)


def test_another_processes_password_is_of_no_use() -> None:
    """Each address has its own."""

    async def story() -> None:
        async with tooled() as found:
            other = await found.broker.open(listen(), "acme", "work", hosts=(HOST,))
            other.allow(open=True)
            theirs = other.proxy.split("@")[0].removeprefix("http://").encode()
            header = b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(theirs)
            asked = found.connect().replace(found.authorization, header)
            assert status(await found.raw(asked)) == 407

    told(story)


def test_tools_reach_hosts_while_a_turn_runs_and_with_a_tenant() -> None:
    """A tunnel that is open by then stays."""

    async def story() -> None:
        async with tooled() as found:
            reader, writer = await found.tunnel()
            found.address.allow(open=False)
            answer = await found.raw(found.connect())
            assert (status(answer), said(answer)) == (403, "No turn is running.\n")
            writer.write(b"still")
            assert await reader.readexactly(5) == b"still"
            writer.close()
            found.address = await found.broker.open(listen(), "", "work", hosts=(HOST,))
            found.address.allow(open=True)
            assert status(await found.raw(found.connect())) == 403
            found.address.bind("globex")
            _, writer = await found.tunnel()
            writer.close()
            await until(lambda: len(found.passages) == 4)
            assert sorted(verdicts(found)) == ["closed", "closed", "passed", "passed"]

    told(story)


def test_an_agent_has_so_many_connections_and_no_more() -> None:
    """One that ends makes room; another agent has its own."""

    async def story() -> None:
        async with tooled() as found:
            pairs = [await found.tunnel() for _ in range(MAX_PASSAGES)]
            for request in (found.connect(), found.get()):
                assert status(await found.raw(request)) == 503
            first, found.address = (
                found.address,
                await found.broker.open(listen(), "acme", "work", hosts=(HOST,)),
            )
            found.address.allow(open=True)
            pairs.append(await found.tunnel())
            found.address = first
            pairs[0][1].close()
            await until(lambda: "passed" in verdicts(found))
            pairs.append(await found.tunnel())
            for _, writer in pairs:
                writer.close()

    told(story)


def test_a_host_that_does_not_answer_is_told() -> None:
    """Nothing listens there."""

    async def story() -> None:
        async with served(Pages(PAGE).serve) as port:
            pass
        async with tooled(names={HOST: ("127.0.0.1", port)}) as found:
            answer = await found.raw(found.connect())
            assert status(answer) == 502
            assert said(answer) == f"{HOST} with port 443 was not reached.\n"
            assert verdicts(found) == ["unreached"]

    told(story)


@pytest.mark.parametrize("ends", ["address", "broker"])
def test_a_connection_that_is_being_made_ends_with_its_agent(ends: str) -> None:
    """It is not waited for."""
    asked = asyncio.Event()

    async def wait(reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()

    async def story() -> None:
        async with served(wait) as port:
            upstream = Upstream("http://127.0.0.1:9", f"http://127.0.0.1:{port}")
            async with tooled(upstream=upstream, names={}) as found:
                reader, writer = await found.streams(found.connect())
                await asked.wait()
                if ends == "address":
                    found.address.close()
                    assert await reader.read() == b""
                    await until(lambda: verdicts(found) == ["ended"])
            assert await reader.read() == b""
            assert verdicts(found) == ["ended"]
            writer.close()

    told(story)


def test_a_page_is_fetched_without_tls() -> None:
    """The host sees nothing of the proxy, and the tool that its connection ends."""
    pages = Pages(PAGE)

    async def story() -> None:
        async with tooled(pages.serve) as found:
            url = f"http://{HOST}/a?b"
            answer = await found.raw(found.get(url, b"Proxy-Connection: keep-alive\r\nX: y\r\n"))
            assert answer == (
                b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\npage"
            )
            (request,) = pages.requests
            assert request == (
                b"GET /a?b HTTP/1.1\r\nHost: files.example\r\nX: y\r\nConnection: close\r\n\r\n"
            )
            await until(lambda: found.passages)
            (passage,) = found.passages
            assert (passage.host, passage.port, passage.verdict) == (HOST, 80, "passed")
            assert (passage.sent, passage.received) == (len(request), len(answer))

    told(story)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Length: 9\r\n", b"0123456\n\n"),
        (b"Transfer-Encoding: chunked\r\n", b"7\r\n0123456\r\n0\r\n\r\n"),
    ],
)
def test_a_second_request_does_not_reach_the_first_ones_host(head: bytes, body: bytes) -> None:
    """It may be for another, and holds the password."""
    pages = Pages(PAGE, body[-8:])

    async def story() -> None:
        async with tooled(pages.serve) as found:
            first = found.get(method="POST", head=head) + body
            answer = await found.raw(first + found.get("http://evil.example/"))
            assert answer.count(b"HTTP/1.1 ") == 1
            (request,) = pages.requests
            assert request.endswith(b"Connection: close\r\n\r\n" + body)
            assert b"evil" not in request
            assert found.token.encode() not in request

    told(story)


def test_a_body_that_is_none_ends_its_connection() -> None:
    """As does an answer that is none."""

    async def story() -> None:
        async with tooled(Pages(b"SSH-2.0-x\r\n\r\n" + PAGE).serve) as found:
            head = b"Transfer-Encoding: chunked\r\n"
            assert await found.raw(found.get(method="POST", head=head) + b"x\r\n") == b""
            assert await found.raw(found.get()) == b""
            await until(lambda: verdicts(found) == ["passed", "passed"])

    told(story)


def test_a_request_that_has_two_readings_is_refused() -> None:
    """Without a word of why."""

    async def story() -> None:
        async with tooled() as found:
            for wrong in (
                found.get().replace(b"Host: f", b"Host: g"),
                found.get(head=b"Host: x\r\n"),
                found.get(f"http://me@{HOST}/"),
                found.connect("2130706433:80"),
                found.connect(HOST),
            ):
                answer = await found.raw(wrong)
                assert (status(answer), said(answer)) == (400, "")
            assert {(each.host, each.verdict) for each in found.passages} == {("", "malformed")}

    told(story)


def test_an_entry_that_is_no_host_opens_no_address() -> None:
    """The socket that came with it is closed."""

    async def story() -> None:
        async with tooled() as found:
            listener = listen()
            with pytest.raises(ValueError, match=r"not a host: '10\.0\.0\.0/8'"):
                await found.broker.open(listener, "acme", "work", hosts=("10.0.0.0/8",))
            assert listener.fileno() == -1

    told(story)


def test_the_address_for_tools_is_told_to_none_by_its_name() -> None:
    """What is printed of it holds no password."""

    async def story() -> None:
        async with tooled() as found:
            assert found.address.proxy == f"http://samovar:{found.token}@127.0.0.1:{found.port}"
            assert found.token not in repr(found.address)

    told(story)
