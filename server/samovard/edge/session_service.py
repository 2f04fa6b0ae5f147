"""The `Session` service: each RPC in a few lines.

Knows gRPC and the contract; the work is the core's.
"""

from datetime import UTC, datetime
from typing import Any

import grpc

from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc
from samovard.core.records import UsageRecords
from samovard.core.sessions.sessions import Sessions
from samovard.edge import audit, call_telemetry, validate, wire
from samovard.edge.identity import current_caller
from samovard.edge.pages import Pages
from samovard.edge.status import Answering

Context = grpc.aio.ServicerContext[Any, Any]


class SessionService(session_pb2_grpc.SessionServicer):
    """Servicer of `samovar.v1.Session`."""

    def __init__(self, sessions: Sessions, usage: UsageRecords, pages: Pages) -> None:
        self._sessions = sessions
        self._usage = usage
        self._pages = pages

    async def Send(self, request: pb.SendRequest, context: Context) -> None:  # type: ignore[override]  # the stub declares the generator form
        """Run one turn and stream its events."""
        async with Answering(context):
            caller = current_caller()
            left = context.time_remaining()
            turn_request = validate.send(caller.tenant, request, caller, left)
            audit.names(turn_request.key.session, turn_request.prompt.turn_id)
            beginning = self._sessions.begin(turn_request, call_telemetry.current())
            # From here on only the turn holds the prompt, until it is written.
            del request, turn_request
            async with await beginning as stream:
                async for batches in stream:
                    for response in wire.send_responses(batches):
                        await call_telemetry.write(context, response)

    async def Attach(self, request: pb.AttachRequest, context: Context) -> None:  # type: ignore[override]  # the stub declares the generator form
        """Follow a turn that waits, runs or is still held."""
        async with Answering(context):
            key, turn_id, after = validate.attach(current_caller().tenant, request)
            audit.names(key.session, turn_id)
            async with await self._sessions.attach(
                key, turn_id, after, call_telemetry.current()
            ) as stream:
                async for batches in stream:
                    for response in wire.attach_responses(batches):
                        await call_telemetry.write(context, response)

    async def Respond(self, request: pb.RespondRequest, context: Context) -> pb.RespondResponse:
        """Answer a permission request."""
        async with Answering(context):
            tenant = current_caller().tenant
            key, permission_id, decision = validate.respond(tenant, request)
            audit.names(key.session)
            await audit.allow()
            await self._sessions.respond(key, permission_id, decision)
        return pb.RespondResponse()

    async def Interrupt(
        self, request: pb.InterruptRequest, context: Context
    ) -> pb.InterruptResponse:
        """Interrupt a turn."""
        response = pb.InterruptResponse()
        async with Answering(context):
            tenant = current_caller().tenant
            key, turn_id = validate.turn(tenant, request.session_id, request.turn_id)
            audit.names(key.session, turn_id)
            await audit.allow()
            response.was_running = await self._sessions.interrupt(key, turn_id)
        return response

    async def GetSession(
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """Return a session."""
        response = pb.GetSessionResponse()
        async with Answering(context):
            key = validate.session(current_caller().tenant, request.session_id)
            audit.names(key.session)
            info = await self._sessions.get(key)
            response.session.CopyFrom(wire.session_info(info))
        return response

    async def ListSessions(
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """List the caller's sessions, most recently used first."""
        response = pb.ListSessionsResponse()
        async with Answering(context):
            await self._list(current_caller().tenant, request, response)
        return response

    async def _list(
        self, tenant: str, request: pb.ListSessionsRequest, response: pb.ListSessionsResponse
    ) -> None:
        size = validate.page_size(request.page_size, 50, 500)
        state = validate.state(request.state)
        scope = (tenant, "ListSessions", str(request.state))
        cursor = self._pages.cursor(*scope, request.page_token)
        page = await self._sessions.list(tenant, cursor, size, state)
        for info in page:  # a session that left the state meanwhile is not listed
            if state in (None, info.state):
                response.sessions.append(wire.session_info(info))
        if len(page) == size:
            cursor = (page[-1].record.update_time, page[-1].record.key.session)
            response.next_page_token = self._pages.token(*scope, cursor)

    async def CloseSession(
        self, request: pb.CloseSessionRequest, context: Context
    ) -> pb.CloseSessionResponse:
        """Close a session for good."""
        response = pb.CloseSessionResponse()
        async with Answering(context):
            key = validate.session(current_caller().tenant, request.session_id, required=True)
            audit.names(key.session)
            await audit.allow()
            info = await self._sessions.close(key)
            if info is not None:
                response.session.CopyFrom(wire.session_info(info))
        return response

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """Tell what the caller's turns used."""
        response = pb.GetUsageResponse()
        async with Answering(context):
            days = validate.usage(request, datetime.now(UTC).date())
            found = await self._usage.list(current_caller().tenant, days, None, None)
            response.days.extend(map(wire.daily_usage, found))
        return response
