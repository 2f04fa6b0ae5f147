"""The way to a host of the tools: its addresses, which are looked at, or the operator's proxy.

Knows names and connections. Knows nothing of agents or of what passes.
"""

import asyncio
import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MappingProxyType
from urllib.parse import urlsplit

from samovard.agent.broker.heads import END
from samovard.agent.broker.hosts import is_address, is_public, written
from samovard.agent.broker.upstream import Upstream

MAX_TRIES = 4  # addresses of one name
LOOKUPS = 16  # at once, of all agents
READ = 8 << 10

_AGREED = re.compile(rb"HTTP/1\.[01] 2[0-9][0-9]( |\r\n)")

Names = Mapping[str, tuple[str, int]]
NO_NAMES: Names = MappingProxyType({})


class Barred(Exception):
    """A host has no address that may be reached."""


class Reached(asyncio.BufferedProtocol):
    """A connection that was made and is not used yet: it reads nothing, or an answer's head."""

    def __init__(self, *, reads: bool) -> None:
        self._reads = reads
        self._view = memoryview(bytearray(READ))
        self._filled = 0
        self.transport: asyncio.Transport
        self.head: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Read nothing until the bytes can be taken."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if not self._reads:
            transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return what is left of the buffer."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Stop at the end of a head."""
        self._filled += nbytes
        found = bytes(self._view[: self._filled])
        if END in found or self._filled == READ:
            self.transport.pause_reading()
            if not self.head.done():
                self.head.set_result(found)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits for the head."""
        if not self.head.done():
            self.head.set_result(b"")


class Ways:
    """The ways from here to any host, of all agents.

    `names` are hosts that are led to an address and port as they are, without a look at them.
    """

    def __init__(self, upstream: Upstream, names: Names = NO_NAMES) -> None:
        self._upstream = upstream
        self._names = names
        # Of its own: a name server that does not answer holds up no request to the model's API.
        self._threads = ThreadPoolExecutor(LOOKUPS, "names")

    def close(self) -> None:
        """Look up no name any more, without waiting."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def to(self, host: str, port: int) -> tuple[asyncio.Transport, bytes]:
        """Return a connection that is not read from, and what was read of it already.

        Raise `Barred`, `TimeoutError` or another `OSError`.
        """
        deadline = asyncio.get_running_loop().time() + self._upstream.connect_timeout
        if host in self._names:
            return await self._connected(*self._names[host], deadline), b""
        if is_address(host) and not is_public(host):
            raise Barred(host)
        if proxy := self._upstream.way(written(host, port)):
            async with asyncio.timeout_at(deadline):
                return await self._through(proxy, host, port)
        async with asyncio.timeout_at(deadline):
            found = await self._addresses(host, port)
        return await self._first(found, port, deadline), b""

    async def _addresses(self, host: str, port: int) -> list[str]:
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        except UnicodeError as error:
            raise OSError("no name") from error
        public = [text for *_, (text, *_) in found if isinstance(text, str) and is_public(text)]
        if not public:
            raise Barred(host)
        return [*dict.fromkeys(public)][:MAX_TRIES]

    async def _first(self, found: list[str], port: int, deadline: float) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        for left in range(len(found), 1, -1):
            now = loop.time()
            try:
                # The address that was looked at: asked again, its name could be another's.
                return await self._connected(found[-left], port, now + (deadline - now) / left)
            except OSError:
                continue
        return await self._connected(found[-1], port, deadline)

    async def _connected(self, address: str, port: int, deadline: float) -> asyncio.Transport:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(deadline):
            made = await loop.create_connection(lambda: Reached(reads=False), address, port)
        return made[0]

    async def _through(self, proxy: str, host: str, port: int) -> tuple[asyncio.Transport, bytes]:
        """Return a tunnel by the operator's proxy.

        That is who looks the name up then, perhaps where no other name server knows it. What the
        name leads to cannot be looked at here: the proxy has to refuse its own networks.
        """
        parts = urlsplit(proxy)
        loop = asyncio.get_running_loop()
        transport, reached = await loop.create_connection(
            lambda: Reached(reads=True), parts.hostname or "", parts.port or 80
        )
        place = written(host, port)
        try:
            transport.write(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n".encode())
            head, end, rest = (await reached.head).partition(END)
        except BaseException:
            transport.abort()
            raise
        if not end or not _AGREED.match(head + b"\r\n"):
            transport.abort()
            raise ConnectionRefusedError("the proxy refused")
        return transport, rest
