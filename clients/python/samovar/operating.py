"""The operator's clients: they see all tenants' pools, and replace processes.

They use the operator's listener, which takes no turns.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from datetime import date
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc

from samovar import bounds, pools
from samovar.loops import PerLoop
from samovar.pools import Drained, PoolInfo, PoolSnapshot, ProcessInfo
from samovar.transport import Tls, Transport, tls_of
from samovar.turns import CONTROL_DEADLINE, DailyUsage, daily_usage, day
from samovar.v1 import pool_pb2 as pb
from samovar.v1 import pool_pb2_grpc

SOCKET = "operator.sock"
MAX_PATH = 107  # bytes, of the path of a unix socket on Linux
#: The client reads nothing ahead: a snapshot that waited would be old. By default the window is 64
#: KiB, some hundred snapshots (grpcio 1.85.3); without the second option the first is ignored.
UNREAD = (("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0))
#: Socket of a service of the system, besides those of its users.
SHARED = ("/run/samovar", "/var/lib/samovar")


def operator_target(environ: Mapping[str, str] = os.environ) -> str:
    """Return the address of the operator's socket: `SAMOVAR_OPERATOR`, or the first that exists.

    The sockets that are tried are those of a samovard without settings, of this user and of the
    system.
    """
    if named := environ.get("SAMOVAR_OPERATOR"):
        return named
    home = environ.get("XDG_STATE_HOME", "")
    state = home if os.path.isabs(home) else os.path.expanduser("~/.local/state")
    paths = [os.path.join(directory, SOCKET) for directory in (f"{state}/samovar", *SHARED)]
    path = next(filter(os.path.lexists, paths), paths[0])
    # A path that is too long for a socket is a link to a shorter one.
    return f"unix:{path if len(os.fsencode(path)) <= MAX_PATH else os.path.realpath(path)}"


class Operator:
    """A client of a samovard's operator listener. A context manager.

    `target` is `unix:/path` or `host:port` of the operator's listener, by default where
    `operator_target` finds it; `api_key` needs the scope `admin`. All methods raise
    `SamovarError`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        tls: Tls | bool | None = None,
    ) -> None:
        self._transport = Transport(target or operator_target(), api_key, tls_of(tls))
        self._channel = _channel(self._transport, grpc.insecure_channel, grpc.secure_channel)
        self._stub = pool_pb2_grpc.PoolStub(self._channel)

    def __repr__(self) -> str:
        return f"<samovar.Operator {self._transport}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the channel: later calls and open watches raise `ClientClosed`."""
        self._transport.closed = True
        self._channel.close()

    def list_pools(self, tenant: str = "") -> Iterator[PoolInfo]:
        """Yield the pools of a tenant, or of all, page by page."""
        request = pb.ListPoolsRequest(tenant_id=tenant)
        while True:
            page: pb.ListPoolsResponse = self._call(self._stub.ListPools, request)
            yield from map(pools.pool, page.pools)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def list_processes(self, tenant: str = "") -> Iterator[ProcessInfo]:
        """Yield the processes of a tenant, or of all, oldest first, page by page."""
        request = pb.ListProcessesRequest(tenant_id=tenant)
        while True:
            page: pb.ListProcessesResponse = self._call(self._stub.ListProcesses, request)
            yield from map(pools.process, page.processes)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def watch(
        self, interval: float = 1.0, tenant: str = "", max_rows: int = 100
    ) -> Generator[PoolSnapshot, None, None]:
        """Yield a snapshot at once and then one every interval, in seconds.

        A reader that takes longer misses some, and gets at most one that waited. Closing the
        iterator ends the call. Raise `Draining` once the server is gone.
        """
        request, metadata = _watching(interval, tenant, max_rows), self._transport.authorization
        with self._transport.typed():
            call = self._stub.WatchPools(request, metadata=metadata)
            try:
                for message in call:
                    yield pools.snapshot(message)
            finally:
                call.cancel()

    def drain(self, tenant: str, profile: str = "") -> Drained:
        """Replace a tenant's processes, those of one profile or of all. Idempotent."""
        request = pb.DrainPoolRequest(tenant_id=tenant, profile=profile)
        response: pb.DrainPoolResponse = self._call(self._stub.DrainPool, request)
        return Drained(response.stopped, response.marked)

    def pause(self, tenant: str = "") -> None:
        """Let no turn of a tenant begin, or of any, until `resume`. Running ones go on."""
        self._call(self._stub.PausePool, pb.PausePoolRequest(tenant_id=tenant))

    def resume(self, tenant: str = "") -> None:
        """Let turns of a tenant begin again; without a name, those of all tenants."""
        self._call(self._stub.ResumePool, pb.ResumePoolRequest(tenant_id=tenant))

    def interrupt_session(self, tenant: str, session: str) -> str:
        """Interrupt a session's running turn. Return its id, empty if none runs."""
        request = pb.InterruptSessionRequest(tenant_id=tenant, session_id=session)
        response: pb.InterruptSessionResponse = self._call(self._stub.InterruptSession, request)
        return response.turn_id

    def close_tenant_session(self, tenant: str, session: str) -> bool:
        """Close a tenant's session for good, if there is one. Return True if there was."""
        request = pb.CloseTenantSessionRequest(tenant_id=tenant, session_id=session)
        response: pb.CloseTenantSessionResponse = self._call(self._stub.CloseTenantSession, request)
        return response.closed

    def unblock_session(self, tenant: str, session: str) -> bool:
        """Let turns run again in a blocked session. Return True if it was blocked.

        A session whose processes keep ending may be started again at once.
        """
        request = pb.UnblockSessionRequest(tenant_id=tenant, session_id=session)
        response: pb.UnblockSessionResponse = self._call(self._stub.UnblockSession, request)
        return response.was_blocked

    def list_usage(
        self, tenant: str = "", first_day: date | None = None, last_day: date | None = None
    ) -> Iterator[DailyUsage]:
        """Yield what a tenant's turns used, or all tenants', by tenant, day and model.

        Both days are included: by default the 30 days before today, and today; at most 366 days.
        """
        request = _used(tenant, first_day, last_day)
        while True:
            page: pb.ListUsageResponse = self._call(self._stub.ListUsage, request)
            yield from (daily_usage(entry.usage, entry.tenant_id) for entry in page.entries)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _call(self, method: Callable[..., Any], request: Any) -> Any:
        metadata = self._transport.authorization
        with self._transport.typed():
            return method(request, timeout=CONTROL_DEADLINE, metadata=metadata)


class AsyncOperator:
    """The operator's client for asyncio, in any event loop.

    An async context manager; see `Operator`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        tls: Tls | bool | None = None,
    ) -> None:
        self._transport = Transport(target or operator_target(), api_key, tls_of(tls))
        self._stubs: PerLoop[_Stub] = PerLoop()

    def _make_stub(self) -> "_Stub":
        channel = _channel(self._transport, grpc.aio.insecure_channel, grpc.aio.secure_channel)
        return _Stub(channel, pool_pb2_grpc.PoolStub(channel))

    def __repr__(self) -> str:
        return f"<samovar.AsyncOperator {self._transport}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the channel: later calls and open watches raise `ClientClosed`."""
        self._transport.closed = True
        own = self._stubs.clear()
        if own is not None:
            await own.channel.close(None)

    async def list_pools(self, tenant: str = "") -> AsyncIterator[PoolInfo]:
        """Yield the pools of a tenant, or of all, page by page."""
        request = pb.ListPoolsRequest(tenant_id=tenant)
        while True:
            page: pb.ListPoolsResponse = await self._call("ListPools", request)
            for message in page.pools:
                yield pools.pool(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def list_processes(self, tenant: str = "") -> AsyncIterator[ProcessInfo]:
        """Yield the processes of a tenant, or of all, oldest first, page by page."""
        request = pb.ListProcessesRequest(tenant_id=tenant)
        while True:
            page: pb.ListProcessesResponse = await self._call("ListProcesses", request)
            for message in page.processes:
                yield pools.process(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def watch(
        self, interval: float = 1.0, tenant: str = "", max_rows: int = 100
    ) -> AsyncGenerator[PoolSnapshot, None]:
        """Yield a snapshot at once and then one every interval; see `Operator.watch`."""
        request, metadata = _watching(interval, tenant, max_rows), self._transport.authorization
        with self._transport.typed():
            call = self._stubs.get(self._make_stub).stub.WatchPools(request, metadata=metadata)
            try:
                async for message in call:
                    yield pools.snapshot(message)
            finally:
                call.cancel()

    async def drain(self, tenant: str, profile: str = "") -> Drained:
        """Replace a tenant's processes, those of one profile or of all. Idempotent."""
        request = pb.DrainPoolRequest(tenant_id=tenant, profile=profile)
        response: pb.DrainPoolResponse = await self._call("DrainPool", request)
        return Drained(response.stopped, response.marked)

    async def pause(self, tenant: str = "") -> None:
        """Let no turn of a tenant begin, or of any; see `Operator.pause`."""
        await self._call("PausePool", pb.PausePoolRequest(tenant_id=tenant))

    async def resume(self, tenant: str = "") -> None:
        """Let turns of a tenant, or of all, begin again."""
        await self._call("ResumePool", pb.ResumePoolRequest(tenant_id=tenant))

    async def interrupt_session(self, tenant: str, session: str) -> str:
        """Interrupt a session's running turn; see `Operator.interrupt_session`."""
        request = pb.InterruptSessionRequest(tenant_id=tenant, session_id=session)
        response: pb.InterruptSessionResponse = await self._call("InterruptSession", request)
        return response.turn_id

    async def close_tenant_session(self, tenant: str, session: str) -> bool:
        """Close a tenant's session for good; see `Operator.close_tenant_session`."""
        request = pb.CloseTenantSessionRequest(tenant_id=tenant, session_id=session)
        response: pb.CloseTenantSessionResponse = await self._call("CloseTenantSession", request)
        return response.closed

    async def unblock_session(self, tenant: str, session: str) -> bool:
        """Let turns run again in a blocked session; see `Operator.unblock_session`."""
        request = pb.UnblockSessionRequest(tenant_id=tenant, session_id=session)
        response: pb.UnblockSessionResponse = await self._call("UnblockSession", request)
        return response.was_blocked

    async def list_usage(
        self, tenant: str = "", first_day: date | None = None, last_day: date | None = None
    ) -> AsyncIterator[DailyUsage]:
        """Yield what a tenant's turns used, or all tenants'; see `Operator.list_usage`."""
        request = _used(tenant, first_day, last_day)
        while True:
            page: pb.ListUsageResponse = await self._call("ListUsage", request)
            for entry in page.entries:
                yield daily_usage(entry.usage, entry.tenant_id)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _call(self, method: str, request: Any) -> Any:
        metadata = self._transport.authorization
        with self._transport.typed():
            call = getattr(self._stubs.get(self._make_stub).stub, method)
            return await call(request, timeout=CONTROL_DEADLINE, metadata=metadata)


class _Stub(NamedTuple):
    """The channel of one event loop, and its stub."""

    channel: grpc.aio.Channel
    stub: Any  # the generated stub is declared for synchronous channels


def _channel(transport: Transport, insecure: Callable[..., Any], secure: Callable[..., Any]) -> Any:
    options = [*transport.options(control=True), *UNREAD]
    if transport.credentials is None:
        return insecure(transport.target, options)
    return secure(transport.target, transport.credentials, options)


def _used(tenant: str, first: date | None, last: date | None) -> pb.ListUsageRequest:
    return pb.ListUsageRequest(tenant_id=tenant, first_day=day(first), last_day=day(last))


def _watching(interval: float, tenant: str, max_rows: int) -> pb.WatchPoolsRequest:
    rows = bounds.count("max_rows", max_rows)
    request = pb.WatchPoolsRequest(tenant_id=tenant, max_rows=rows)
    request.interval.FromMicroseconds(round(1e6 * bounds.seconds("interval", interval)))
    return request
