"""Agents' own spans on their way to the collector, without any tenant's credential.

Knows HTTP. Knows nothing of what a span holds.
"""

import asyncio
import hmac
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from samovard.agent.broker.passing import closing, pieces
from samovard.agent.broker.upstream import Clients

PATH = "/v1/traces"
MAX_BODY = 4 << 20
MAX_AT_ONCE = 4  # of one agent
TIMEOUT = 10.0  # seconds for one export
_PASSED = ("content-type", "content-encoding")
_NOBODY = ""  # no tenant's connections are used


class Spans:
    """The handler of one agent's exports; refuses them if there is no collector."""

    def __init__(self, token: str, clients: Clients) -> None:
        self._path = f"/{token}{PATH}".encode()
        self._clients = clients
        self._running = 0

    def takes(self, request: web.BaseRequest) -> bool:
        """True if a request is an export. Whether a turn runs does not matter: it costs nothing."""
        path = request.raw_path.encode(errors="replace")
        return bool(self._clients.upstream.traces) and hmac.compare_digest(path, self._path)

    async def handle(self, request: web.BaseRequest) -> web.Response:
        """Pass one export on, and return the collector's status."""
        length = request.content_length
        if request.method != "POST" or length is None or length > MAX_BODY:
            return closing(web.Response(status=400))
        if self._running >= MAX_AT_ONCE:
            return closing(web.Response(status=429))
        self._running += 1
        try:
            async with asyncio.timeout(TIMEOUT):
                return web.Response(status=await self._pass(request, length))
        except (aiohttp.ClientError, TimeoutError):
            return closing(web.Response(status=503))
        finally:
            self._running -= 1

    async def _pass(self, request: web.BaseRequest, length: int) -> int:
        upstream = self._clients.upstream
        passed = {name: request.headers[name] for name in _PASSED if name in request.headers}
        client = self._clients.take(_NOBODY)
        try:
            async with client.post(
                upstream.traces,
                headers={**passed, "Content-Length": str(length)},
                data=pieces(request),
                allow_redirects=False,
                proxy=upstream.way(urlsplit(upstream.traces).netloc),
            ) as answer:
                return answer.status
        finally:
            await self._clients.give_back(_NOBODY)
