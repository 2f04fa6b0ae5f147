"""The tools of an agent, between a broker and loopback servers that stand for hosts."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from support.brokered import Tenants
from support.timeouts import BOUND

from samovard.agent.broker.broker import Address, Broker, listen
from samovard.agent.broker.passages import Passage
from samovard.agent.broker.upstream import Upstream

HOST = "files.example"
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Tooled:
    """A broker, one address whose tools may reach `HOST`, and what is told of their connections."""

    broker: Broker
    address: Address
    passages: list[Passage] = field(default_factory=list)

    @property
    def token(self) -> str:
        return self.address.url.rsplit("/", 1)[1]

    @property
    def port(self) -> int:
        return int(self.address.proxy.rpartition(":")[2])

    @property
    def authorization(self) -> bytes:
        return b"Proxy-Authorization: Basic %b\r\n" % base64.b64encode(
            f"samovar:{self.token}".encode()
        )

    def connect(self, place: str = f"{HOST}:443") -> bytes:
        """Return a request for a tunnel."""
        return f"CONNECT {place} HTTP/1.1\r\n".encode() + self.authorization + b"\r\n"

    def get(self, url: str = f"http://{HOST}/", head: bytes = b"", method: str = "GET") -> bytes:
        """Return a request for a page, with these bytes added to its headers."""
        first = f"{method} {url} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\n".encode()
        return first + self.authorization + head + b"\r\n"

    async def streams(self, data: bytes = b"") -> Streams:
        """Connect, and send bytes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        return reader, writer

    async def raw(self, data: bytes) -> bytes:
        """Send bytes and return all that comes back."""
        reader, writer = await self.streams(data)
        try:
            return await asyncio.wait_for(reader.read(), BOUND)
        finally:
            writer.close()

    async def tunnel(self, place: str = f"{HOST}:443") -> Streams:
        """Return the inside of a tunnel."""
        reader, writer = await self.streams(self.connect(place))
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), BOUND)
        assert head == b"HTTP/1.1 200 Connection established\r\n\r\n"
        return reader, writer


@asynccontextmanager
async def tooled(
    serve: Serve | None = None,
    *,
    hosts: tuple[str, ...] = (HOST,),
    names: Mapping[str, tuple[str, int]] | None = None,
    upstream: Upstream | None = None,
) -> AsyncIterator[Tooled]:
    """Run a broker whose tools reach a server that serves each connection so."""
    passages: list[Passage] = []
    async with served(serve or echo) as port:
        led = {HOST: ("127.0.0.1", port)} if names is None else names
        up = upstream or Upstream("http://127.0.0.1:9")
        broker = Broker(Tenants(), up, on_passage=passages.append, names=led)
        async with broker:
            address = await broker.open(listen(), "acme", "work", session="label", hosts=hosts)
            address.allow(open=True)
            yield Tooled(broker, address, passages)


@asynccontextmanager
async def served(serve: Serve, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run a server on an address of loopback; yield its port."""
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The other end may have gone, or the test may be over.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await serve(reader, writer)
            writer.close()
            await writer.wait_closed()

    def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(run(reader, writer))
        tasks[task] = writer
        task.add_done_callback(lambda _: tasks.pop(task).transport.abort())

    server = await asyncio.start_server(begin, host, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, and end when it ends."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
