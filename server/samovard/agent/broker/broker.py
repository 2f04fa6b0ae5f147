"""The broker's event loop, in a thread of its own, and the addresses that it serves.

An address is for one agent: a socket of its own and an unguessable first part of the path, which is
also the password of its tools, for whom the same socket is a proxy. Knows threads and sockets.
Knows nothing of what passes.
"""

import asyncio
import contextlib
import contextvars
import logging
import secrets
import socket
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Self

from aiohttp import web

from samovard.agent.broker.door import LINGERING, MAX_CONNECTIONS, Door, Doors
from samovard.agent.broker.heads import USER
from samovard.agent.broker.hosts import Hosts
from samovard.agent.broker.keys import Keys
from samovard.agent.broker.passages import OnPassage, Passages
from samovard.agent.broker.proxy import Access, Proxy, Report
from samovard.agent.broker.upstream import Clients, Upstream
from samovard.agent.broker.ways import NO_NAMES, Names, Ways
from samovard.agent.credentials import Credential, Provider
from samovard.agent.mcp import McpServer

HOST = "127.0.0.1"
MAX_LINE = 1024  # bytes of a request's first line
END_TIMEOUT = 5.0

# What aiohttp has to say of a request may hold parts of it.
_NOWHERE = logging.Logger("samovard.broker", logging.CRITICAL + 1)
_NOWHERE.addHandler(logging.NullHandler())


class Address:
    """Where one agent reaches the API, until it is closed. Methods are for the service's loop."""

    def __init__(self, broker: "Broker", access: Access, port: int) -> None:
        self._broker = broker
        self.access = access
        self.port = port
        self.url = f"http://{HOST}:{port}/{access.token}"
        #: What tools are given as their proxy. It holds a secret, as `url` does.
        self.proxy = f"http://{USER}:{access.token}@{HOST}:{port}"

    def __repr__(self) -> str:
        return f"<Address open={self.access.open} bound={bool(self.access.tenant)}>"

    def bind(self, tenant: str) -> None:
        """Serve requests with this tenant's credential from now on. An address is bound once."""
        if self.access.tenant:
            raise ValueError("the address is bound already")
        self.access.tenant = tenant

    def listen(self, listener: socket.socket) -> None:
        """Serve a socket that listens already, which is the broker's from now on."""
        with contextlib.suppress(RuntimeError):  # the broker has ended, and the socket with it
            self._broker.serve(listener, self.access)

    def allow(self, *, open: bool) -> None:
        """Take requests from now on, or refuse them."""
        self.access.open = open

    def close(self) -> None:
        """End the address with everything that runs on it. Idempotent."""
        self.access.open = False
        self.access.over = True
        self._broker.forget(self.access.token)


class Broker:
    """The broker; runs while this is entered.

    `report` is told of each request to the API, `on_passage` of each connection of a tool, both on
    the broker's thread. `names` leads hosts to other places, for tests: no address of it is looked
    at, so it must never come from a setting.
    """

    def __init__(
        self,
        provider: Provider,
        upstream: Upstream,
        report: Report = lambda exchange: None,
        servers: Mapping[str, Mapping[str, McpServer]] | None = None,
        *,
        on_passage: OnPassage = lambda passage: None,
        names: Names = NO_NAMES,
    ) -> None:
        self._provider = provider
        self._upstream = upstream
        self._report = report
        self._on_passage = on_passage
        self._ways = Ways(upstream, names)
        self._servers = servers or {}  # of each profile, by name
        self._loop: asyncio.AbstractEventLoop
        self._thread: threading.Thread | None = None
        # Of the broker's loop.
        self._serving: dict[str, Serving] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._clients: Clients
        self._keys: Keys

    async def __aenter__(self) -> Self:
        self._clients = Clients(self._upstream, self._upstream.tls())
        self._keys = Keys(_OnLoop(self._provider, asyncio.get_running_loop()))
        self._loop = asyncio.new_event_loop()
        context = contextvars.copy_context()  # so that its log lines name the server
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="broker")
        self._thread.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(self._end())
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        finally:
            self._loop.close()

    async def _end(self) -> None:
        for token in [*self._serving]:
            self._forget(token)
        if left := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in left - self._ending:
                task.cancel()
            await asyncio.wait(left, timeout=END_TIMEOUT)
        self._ways.close()

    def reserve(
        self,
        port: int,
        tenant: str,
        profile: str,
        *,
        session: str = "",
        hosts: Iterable[str] = (),
    ) -> Address:
        """Return an address for an agent whose listening socket is there later.

        Without a tenant everything is refused until the address is bound. `hosts` are the entries
        of those that its tools reach by `Address.proxy`; `session` is a label for what is told of
        them. Raise `ValueError` for an entry that is none.
        """
        token = f"samovar_broker_{secrets.token_hex(32)}"
        access = Access(token, profile, tenant, session=session, hosts=Hosts.of(hosts))
        return Address(self, access, port)

    async def open(
        self,
        listener: socket.socket,
        tenant: str,
        profile: str,
        *,
        session: str = "",
        hosts: Iterable[str] = (),
    ) -> Address:
        """Serve an agent on a socket that listens already, which is the broker's from now on.

        The rest is as with `reserve`. If it fails or is cancelled, the socket is closed.
        """
        port = listener.getsockname()[1]
        try:
            address = self.reserve(port, tenant, profile, session=session, hosts=hosts)
        except ValueError:
            listener.close()
            raise
        try:
            await asyncio.shield(asyncio.wrap_future(self.serve(listener, address.access)))
        except BaseException:
            # A caller that leaves meanwhile has no address that it could close.
            address.close()
            raise
        return address

    def serve(self, listener: socket.socket, access: Access) -> "Future[None]":
        """Serve a listening socket, without waiting. May be called on any thread.

        Raise `RuntimeError` if the broker has ended; the socket is closed then.
        """
        work = self._serve(listener, access)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except RuntimeError:
            work.close()
            listener.close()
            raise

    async def _serve(self, listener: socket.socket, access: Access) -> None:
        servers = self._servers.get(access.profile, {})
        proxy = Proxy(access, self._keys, self._clients, self._report, servers)
        serving = Serving(proxy, Passages(access, self._ways, self._on_passage))
        await serving.listen(listener)
        self._serving[access.token] = serving
        if access.over:  # its agent has ended before it was served
            self._forget(access.token)

    def forget(self, token: str) -> None:
        """End what is served under a token, without waiting. May be called on any thread."""
        # A process may end after the broker has, which has closed its address by then.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._forget, token)

    def _forget(self, token: str) -> None:
        if serving := self._serving.pop(token, None):
            task = self._loop.create_task(serving.end())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)


class _OnLoop:
    """A provider that is asked on the service's loop, where agents' starts ask it too."""

    def __init__(self, provider: Provider, loop: asyncio.AbstractEventLoop) -> None:
        self._provider = provider
        self._loop = loop

    async def get(self, tenant: str, *, fresh: bool = False) -> Credential:
        work = self._provider.get(tenant, fresh=fresh)
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


class Serving:
    """One listening socket and its connections."""

    def __init__(self, proxy: Proxy, passages: Passages) -> None:
        self._proxy = proxy
        self._passages = passages
        # A request that its agent leaves is cancelled: it would go on costing money.
        self._http = web.Server(proxy.handle, handler_cancellation=True)
        self._doors = Doors(passages, self._connection, lambda: self._http.connections)
        self._listening: asyncio.Server | None = None

    def _connection(self) -> web.RequestHandler:
        return web.RequestHandler(
            self._http,
            loop=asyncio.get_running_loop(),
            access_log=_NOWHERE,
            logger=_NOWHERE,
            max_line_size=MAX_LINE,
            max_headers=64,
            lingering_time=LINGERING,
            auto_decompress=False,
        )

    async def listen(self, listener: socket.socket) -> None:
        """Serve a socket that listens already."""
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(lambda: Door(self._doors), sock=listener)

    async def end(self) -> None:
        """Close the socket and every connection, also one that is being made."""
        self._doors.end()
        if self._listening is not None:
            # A connection that was just accepted needs an open server to become one: asyncio
            # would fail and forget its socket (Python 3.11).
            asyncio.get_running_loop().remove_reader(self._listening.sockets[0].fileno())
            await asyncio.sleep(0)
            self._listening.close()
        for connection in self._http.connections:
            # At once: an agent that does not read must not keep its connection.
            if connection.transport is not None:
                connection.transport.abort()
        await self._passages.end()
        await self._proxy.end()


def listen() -> socket.socket:
    """Return a socket that listens on a free port of this machine alone."""
    return socket.create_server((HOST, 0), backlog=MAX_CONNECTIONS)
