"""An agent's requests to its profile's MCP servers, with the headers that the agent must not have.

Knows HTTP, and the headers of MCP's transport. Knows nothing of what a message says.
"""

import asyncio
import hmac
from collections.abc import Mapping
from urllib.parse import urlsplit

import aiohttp
import structlog
from aiohttp import HttpVersion11, web
from multidict import CIMultiDict
from yarl import URL

from samovard.agent.broker import rules
from samovard.agent.broker.passing import closing, passed_on, pieces
from samovard.agent.broker.upstream import Clients
from samovard.agent.credentials import header
from samovard.agent.mcp import PART, McpServer
from samovard.core.errors import Misconfigured

MAX_BODY = 4 << 20
MAX_AT_ONCE = 16  # of one agent
_METHODS = ("POST", "GET", "DELETE")
_REQUEST = (
    "accept",
    "content-type",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "user-agent",
)
_RESPONSE = ("content-type", "mcp-session-id", "retry-after")

_log = structlog.get_logger("samovard.broker")


class Servers:
    """The handler of one agent's requests to MCP servers. It uses connections of its own."""

    def __init__(self, token: str, clients: Clients, servers: Mapping[str, McpServer]) -> None:
        self._token = token.encode()
        # No tenant has this name. An answer out of step would stay with this agent.
        self._user = token
        self._clients = clients
        self._servers = {name: server for name, server in servers.items() if server.brokered}
        self._running = 0
        self._client: aiohttp.ClientSession | None = None
        self._failing: set[str] = set()

    async def end(self) -> None:
        """Give the client back, once no request uses it any more."""
        if self._client is not None:
            self._client = None
            await self._clients.give_back(self._user)

    def asked(self, request: web.BaseRequest) -> str | None:
        """Return the name of the server that a request is for, None if it is for none.

        Whether a turn runs does not matter: the CLI connects before its first one.
        """
        token, _, rest = request.raw_path[1:].partition("/")
        part, _, name = rest.partition("/")
        known = hmac.compare_digest(token.encode(errors="replace"), self._token)
        whole = known and request.raw_path.startswith("/") and part == PART
        return name if whole and name in self._servers else None

    async def handle(self, request: web.BaseRequest, name: str) -> web.StreamResponse:
        """Answer one request to a server."""
        length = request.content_length
        if request.method != "POST":
            length = length or 0
        if (
            request.method not in _METHODS
            or request.version != HttpVersion11
            or rules.fault_of(request.headers, length) is not None
            or (request.method != "POST" and length)
        ):
            return closing(web.Response(status=400))
        if length is None or length > MAX_BODY:
            return closing(web.Response(status=413))
        if self._running >= MAX_AT_ONCE:
            return closing(web.Response(status=429))
        self._running += 1
        try:
            return await self._with_secrets(request, name, length)
        finally:
            self._running -= 1

    async def _with_secrets(
        self, request: web.BaseRequest, name: str, length: int
    ) -> web.StreamResponse:
        if self._client is None:
            self._client = self._clients.take(self._user)
        client, server = self._client, self._servers[name]
        try:
            secrets = await asyncio.to_thread(_read, server)
            return await self._exchange(request, name, client, _headers(request, server, secrets))
        except Misconfigured as error:
            self._failed(name, str(error))
            return closing(web.Response(status=502))
        except (aiohttp.ClientError, TimeoutError) as error:
            self._failed(name, type(error).__name__)
            return closing(web.Response(status=502))

    async def _exchange(
        self,
        request: web.BaseRequest,
        name: str,
        client: aiohttp.ClientSession,
        headers: CIMultiDict[str],
    ) -> web.StreamResponse:
        url = self._servers[name].url
        way = self._clients.upstream.way
        async with client.request(
            request.method,
            URL(url, encoded=True),
            headers=headers,
            data=pieces(request) if request.method == "POST" else None,
            allow_redirects=False,
            # Without TLS it is on loopback, which no proxy reaches.
            proxy=way(urlsplit(url).netloc) if url.startswith("https:") else None,
        ) as answer:
            self._failing.discard(name)
            passed = {name: answer.headers[name] for name in _RESPONSE if name in answer.headers}
            response = web.StreamResponse(status=answer.status, headers=passed)
            return await passed_on(request, answer, response)

    def _failed(self, name: str, why: str) -> None:
        """Log that a server was not asked; once until it answers again."""
        if name not in self._failing:
            self._failing.add(name)
            _log.warning("mcp.unreached", server=name, why=why)


def _read(server: McpServer) -> dict[str, str]:
    """Return the secret headers as their files are now."""
    return {name: header(path) for name, path in server.secret_headers.items()}


def _headers(
    request: web.BaseRequest, server: McpServer, secrets: Mapping[str, str]
) -> CIMultiDict[str]:
    passed = CIMultiDict(
        (name, request.headers[name]) for name in _REQUEST if name in request.headers
    )
    if request.method == "POST":
        passed["Content-Length"] = str(request.content_length)
    # Bodies pass unchanged, so they must come in a form that the agent can read.
    passed["Accept-Encoding"] = "identity"
    for name, value in (*server.headers.items(), *secrets.items()):
        passed[name] = value
    return passed
