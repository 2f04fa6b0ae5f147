"""The `Pool` service, for operators: each RPC in a few lines.

Knows gRPC and the contract; the core does the work.
"""

import contextlib
from datetime import UTC, datetime
from typing import Any

import grpc

from samovar.v1 import pool_pb2 as pb
from samovar.v1 import pool_pb2_grpc
from samovard.core.operator import snapshot as snapshots
from samovard.core.operator.controls import Controls
from samovard.core.operator.overview import Overview
from samovard.core.pool.counters import PoolKey
from samovard.core.records import SessionKey, UsageRecords
from samovard.edge import audit, call_telemetry
from samovard.edge import pool_validate as validate
from samovard.edge import pool_wire as wire
from samovard.edge.pages import Pages
from samovard.edge.status import Answering

Context = grpc.aio.ServicerContext[Any, Any]
Cursor = tuple[float, str]
Listing = pb.ListPoolsRequest | pb.ListProcessesRequest


class PoolService(pool_pb2_grpc.PoolServicer):
    """Servicer of `samovar.v1.Pool`."""

    def __init__(
        self, overview: Overview, controls: Controls, usage: UsageRecords, pages: Pages
    ) -> None:
        self._overview = overview
        self._controls = controls
        self._usage = usage
        self._pages = pages

    async def ListPools(
        self, request: pb.ListPoolsRequest, context: Context
    ) -> pb.ListPoolsResponse:
        """List the pools, by tenant and profile."""
        response = pb.ListPoolsResponse()
        async with Answering(context):
            size = validate.page(request)
            audit.names(target=request.tenant_id)
            cursor = self._cursor("ListPools", request)
            after = PoolKey(*cursor[1].split("/")) if cursor is not None else None
            rows = snapshots.pools_of(
                await self._overview.look(), request.tenant_id, after, size + 1
            )
            if len(rows) > size:
                place = 0.0, "/".join(rows[size - 1].key)
                response.next_page_token = self._token("ListPools", request, place)
            response.pools.extend(map(wire.pool, rows[:size]))
        return response

    async def ListProcesses(
        self, request: pb.ListProcessesRequest, context: Context
    ) -> pb.ListProcessesResponse:
        """List the processes, oldest first."""
        response = pb.ListProcessesResponse()
        async with Answering(context):
            size = validate.page(request)
            audit.names(target=request.tenant_id)
            cursor = self._cursor("ListProcesses", request)
            snapshot = await self._overview.look()
            rows = snapshots.processes_of(snapshot, request.tenant_id, cursor)
            if len(rows) > size:
                place = rows[size - 1].age
                response.next_page_token = self._token("ListProcesses", request, place)
            response.processes.extend(wire.process(row, snapshot) for row in rows[:size])
        return response

    async def DrainPool(
        self, request: pb.DrainPoolRequest, context: Context
    ) -> pb.DrainPoolResponse:
        """Replace the processes of a tenant."""
        response = pb.DrainPoolResponse()
        async with Answering(context):
            whose = validate.drain(request)
            audit.names(target=request.tenant_id)
            await audit.allow()
            response.stopped, response.marked = self._controls.drain(*whose)
        return response

    async def WatchPools(self, request: pb.WatchPoolsRequest, context: Context) -> None:  # type: ignore[override]  # the stub declares the generator form
        """Stream a snapshot at once and then one every interval."""
        async with Answering(context):
            interval, rows = validate.watch(request)
            audit.names(target=request.tenant_id)
            async with contextlib.aclosing(self._overview.watch(interval)) as snapshots:
                async for snapshot in snapshots:
                    response = wire.snapshot(
                        self._overview.server, snapshot, request.tenant_id, rows
                    )
                    await call_telemetry.write(context, response)

    async def ListUsage(
        self, request: pb.ListUsageRequest, context: Context
    ) -> pb.ListUsageResponse:
        """List what tenants' turns used, by tenant, day and model."""
        response = pb.ListUsageResponse()
        async with Answering(context):
            size, days = validate.usage(request, datetime.now(UTC).date())
            audit.names(target=request.tenant_id)
            scope = "ListUsage", f"{request.tenant_id}/{request.first_day}/{request.last_day}"
            cursor = self._pages.cursor("", *scope, request.page_token)
            tenant, day, model = cursor[1].split("/", 2) if cursor is not None else ("", "", "")
            after = (tenant, day, model) if cursor is not None else None
            rows = await self._usage.list(request.tenant_id, days, size + 1, after)
            if len(rows) > size:
                place = rows[size - 1]
                cursor = 0.0, f"{place.tenant}/{place.day}/{place.model}"
                response.next_page_token = self._pages.token("", *scope, cursor)
            response.entries.extend(map(wire.tenant_usage, rows[:size]))
        return response

    async def PausePool(
        self, request: pb.PausePoolRequest, context: Context
    ) -> pb.PausePoolResponse:
        """Let no turn of a tenant begin."""
        async with Answering(context):
            tenant = validate.pausing(request)
            audit.names(target=tenant)
            await audit.allow()
            self._controls.pause(tenant)
        return pb.PausePoolResponse()

    async def ResumePool(
        self, request: pb.ResumePoolRequest, context: Context
    ) -> pb.ResumePoolResponse:
        """Let turns of a tenant begin again."""
        async with Answering(context):
            tenant = validate.pausing(request)
            audit.names(target=tenant)
            await audit.allow()
            self._controls.resume(tenant)
        return pb.ResumePoolResponse()

    async def InterruptSession(
        self, request: pb.InterruptSessionRequest, context: Context
    ) -> pb.InterruptSessionResponse:
        """Interrupt a session's running turn."""
        response = pb.InterruptSessionResponse()
        async with Answering(context):
            key = await self._allowed(request)
            response.turn_id = await self._controls.interrupt(key)
        return response

    async def CloseTenantSession(
        self, request: pb.CloseTenantSessionRequest, context: Context
    ) -> pb.CloseTenantSessionResponse:
        """Close a tenant's session for good."""
        response = pb.CloseTenantSessionResponse()
        async with Answering(context):
            key = await self._allowed(request)
            response.closed = await self._controls.close(key)
        return response

    async def UnblockSession(
        self, request: pb.UnblockSessionRequest, context: Context
    ) -> pb.UnblockSessionResponse:
        """Let turns run again in a session that is blocked."""
        response = pb.UnblockSessionResponse()
        async with Answering(context):
            key = await self._allowed(request)
            response.was_blocked = await self._controls.unblock(key)
        return response

    async def _allowed(self, request: validate.SessionRequest) -> SessionKey:
        """Return the session of a request, once it is in the audit log that it may act."""
        key = validate.session(request)
        audit.names(key.session, target=key.tenant)
        await audit.allow()
        return key

    def _cursor(self, method: str, request: Listing) -> Cursor | None:
        return self._pages.cursor("", method, request.tenant_id, request.page_token)

    def _token(self, method: str, request: Listing, cursor: Cursor) -> str:
        return self._pages.token("", method, request.tenant_id, cursor)
