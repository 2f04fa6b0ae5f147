"""A broker between a test and an API that the test scripts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from support.timeouts import BOUND

from samovard.agent.broker.broker import Address, Broker, listen
from samovard.agent.broker.proxy import Exchange
from samovard.agent.broker.spans import PATH
from samovard.agent.broker.upstream import Upstream
from samovard.agent.credentials import Credential, Kind, Secret
from samovard.agent.mcp import McpServer

CANARY = "sk-canary-of-acme"
JSON = b"content-type: application/json\r\n"
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Tenants:
    """A provider whose credentials a test changes. `kept` is what is given unless it is fresh."""

    kind: Kind = Kind.API_KEY
    values: dict[str, str] = field(default_factory=lambda: {"acme": CANARY})
    kept: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    fresh: int = 0  # how often it was asked past its cache

    async def get(self, tenant: str, *, fresh: bool = False) -> Credential:
        self.asked += 1
        self.fresh += fresh
        if fresh:
            self.kept.pop(tenant, None)
        value = self.kept.get(tenant) or self.values[tenant]
        return Credential(self.kind, Secret(value), value)


@dataclass
class Seen:
    """A request as the API saw it."""

    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key.lower() == name]


@dataclass
class Brokered:
    """A broker, one address that is open to its tenant, and what passed."""

    broker: Broker
    address: Address
    provider: Tenants
    seen: list[Seen]
    exchanges: list[Exchange]

    @property
    def port(self) -> int:
        return int(self.address.url.split(":")[2].split("/")[0])

    @property
    def path(self) -> str:
        return "/" + self.address.url.split("/", 3)[3] + "/v1/messages"

    async def open(self, tenant: str = "acme", *, works: bool = True) -> Address:
        address = await self.broker.open(listen(), tenant, "default")
        address.allow(open=works)
        return address

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, end the input, and return all that comes back until the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), BOUND)
        finally:
            writer.close()

    def request(self, body: bytes = b"{}", head: bytes = b"", path: str = "") -> bytes:
        """Return a request that passes, with these bytes added to its headers."""
        return (
            f"POST {path or self.path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n".encode()
            + b"content-length: %d\r\n" % len(body)
            + head
            + b"\r\n"
            + body
        )


def status(answer: bytes) -> int:
    """Return the status of an answer, 0 if there is none."""
    return int(answer.split(b" ")[1]) if answer.startswith(b"HTTP/1.") else 0


async def hello(request: web.BaseRequest) -> web.StreamResponse:
    return web.json_response({"usage": {"input_tokens": 3, "output_tokens": 5}})


def _servers(url: str, secret: Path) -> dict[str, McpServer]:
    tickets = McpServer(
        url=f"{url}/tickets?all=%61",
        headers={"x-team": "blue"},
        secret_headers={"Authorization": secret},
    )
    return {"tickets": tickets, "open": McpServer(url=url)}


@asynccontextmanager
async def brokered(
    answer: Answer = hello,
    provider: Tenants | None = None,
    silence_timeout: float = BOUND,
    *,
    traces: bool = False,
    secret: Path | None = None,
) -> AsyncIterator[Brokered]:
    """Run a broker in front of an API that answers as `answer` does.

    With `traces` it is the collector of spans, too; with `secret`, a file, the MCP server `tickets`
    that is given what the file holds.
    """
    seen: list[Seen] = []
    exchanges: list[Exchange] = []
    provider = provider or Tenants()

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        seen.append(Seen(request.raw_path, [*request.headers.items()], body))
        return await answer(request)

    runner = web.ServerRunner(
        web.Server(handle, access_log=None, handler_cancellation=True), shutdown_timeout=0.1
    )
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        url = f"http://{host}:{port}"
        collector = url + PATH if traces else ""
        upstream = Upstream(url, traces=collector, silence_timeout=silence_timeout)
        servers = {"default": {} if secret is None else _servers(url, secret)}
        async with Broker(provider, upstream, exchanges.append, servers) as broker:
            address = await broker.open(listen(), "acme", "default")
            address.allow(open=True)
            yield Brokered(broker, address, provider, seen, exchanges)
    finally:
        await runner.cleanup()
