"""The asynchronous client."""

import asyncio
import contextlib
import inspect
import weakref
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import date
from types import TracebackType
from typing import Any, NamedTuple, Self, Unpack, cast

import grpc

from samovar import bounds, events, health, requests, turns
from samovar.errors import CallBroken, ClientClosed, PermissionNotFound, SamovarError
from samovar.events import PermissionRequested
from samovar.health import SESSION, Boot, Health
from samovar.loops import PerLoop
from samovar.rejoin import Contact, Rejoin
from samovar.requests import Block, Decision, Options, SendOptions
from samovar.transport import DEFAULT_TARGET, Tls, Transport, cancelled, tls_of
from samovar.turns import CONTROL_DEADLINE, Answer, AnswerMaker, DailyUsage, Session
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc

_OTHER_LOOP = "a turn is read in the event loop that began it: attach to it from another one"

Decide = Callable[[PermissionRequested], Decision | Awaitable[Decision]]


class AsyncClient:
    """A client of a samovard for asyncio. An async context manager.

    Arguments are those of `Client`. It may be made outside an event loop, and each loop that
    uses it gets channels of its own: a turn is read in the loop that began it.
    """

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        api_key: str | None = None,
        tls: Tls | bool | None = None,
        deadline: float | None = None,
    ) -> None:
        self._transport = Transport(target, api_key, tls_of(tls))
        self._deadline = bounds.deadline(deadline)
        self._contact = Contact()
        self._open: weakref.WeakSet[AsyncTurn] = weakref.WeakSet()
        self._stubs: PerLoop[_Stubs] = PerLoop()

    def _make_stubs(self) -> "_Stubs":
        channels = self._channel(control=False), self._channel(control=True)
        return _Stubs(channels, *map(cast(Any, session_pb2_grpc.SessionStub), channels))

    def _channel(self, *, control: bool) -> grpc.aio.Channel:
        options = self._transport.options(control=control)
        credentials = self._transport.credentials
        if credentials is None:
            return grpc.aio.insecure_channel(self._transport.target, options)
        return grpc.aio.secure_channel(self._transport.target, credentials, options)

    def __repr__(self) -> str:
        return f"<samovar.AsyncClient {self._transport}>"

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
        """Cancel what is open and close the channels: later calls raise `ClientClosed`."""
        self._transport.closed = True
        for turn in list(self._open):
            await turn.aclose()
        own = self._stubs.clear()
        if own is not None:
            await asyncio.gather(*(channel.close(None) for channel in own.channels))

    async def health(self, service: str = SESSION) -> Health:
        """Return the health of a service; see `Client.health`."""
        return await self._health(service, CONTROL_DEADLINE)

    async def wait(self, timeout: float = 60.0) -> None:
        """Return once the service serves turns; see `Client.wait`."""
        boot = Boot(bounds.seconds("timeout", timeout))
        while (pause := boot.pause(await self._found(boot.left()))) is not None:
            await asyncio.sleep(pause)

    def send(
        self,
        content: Block | Sequence[Block],
        *,
        on_permission: Decide | None = None,
        **options: Unpack[SendOptions],
    ) -> "AsyncTurn":
        """Run one turn and return an iterator of its events; see `Client.send`.

        `on_permission` may be a coroutine function.
        """
        chosen = Options(**options)
        request = requests.send(content, chosen)
        rejoin = Rejoin(
            request.session_id,
            request.turn_id,
            self._contact,
            send=request,
            deadline=bounds.deadline(chosen.deadline, self._deadline),
        )
        return AsyncTurn(self, rejoin, on_permission)

    def attach(
        self,
        turn_id: str,
        session: str | None = None,
        after_sequence: int = 0,
        *,
        deadline: float | None = None,
    ) -> "AsyncTurn":
        """Return an iterator of a turn's events; see `Client.attach`."""
        rejoin = Rejoin(
            session or "",
            turn_id,
            self._contact,
            after=bounds.count("after_sequence", after_sequence, 64),
            deadline=bounds.deadline(deadline, self._deadline),
        )
        return AsyncTurn(self, rejoin)

    async def ask(
        self,
        content: Block | Sequence[Block],
        *,
        on_permission: Decide | None = None,
        **options: Unpack[SendOptions],
    ) -> Answer:
        """Run one turn and return its final text and usage; see `Client.ask`."""
        maker = AnswerMaker()
        async with self.send(content, on_permission=on_permission, **options) as turn:
            async for event in turn:
                maker.take(event)
        return maker.answer()

    async def interrupt(self, turn_id: str, session: str | None = None) -> bool:
        """Interrupt a turn. Return True if it was still running."""
        request = pb.InterruptRequest(session_id=session or "", turn_id=turn_id)
        response: pb.InterruptResponse = await self._call("Interrupt", request, session)
        return response.was_running

    async def allow(
        self,
        permission_id: str,
        session: str | None = None,
        *,
        updated_input: Mapping[str, Any] | None = None,
    ) -> None:
        """Let the tool run that a `PermissionRequested` asks about; see `Client.allow`."""
        await self._respond(requests.allow(permission_id, session, updated_input))

    async def deny(
        self,
        permission_id: str,
        session: str | None = None,
        *,
        message: str = "",
        interrupt: bool = False,
    ) -> None:
        """Keep the tool from running; see `Client.deny`."""
        await self._respond(requests.deny(permission_id, session, message, interrupt=interrupt))

    async def get_session(self, session: str | None = None) -> Session:
        """Return a session. Raise `SessionNotFound` if there is none."""
        request = pb.GetSessionRequest(session_id=session or "")
        response: pb.GetSessionResponse = await self._call("GetSession", request, session)
        return turns.session(response.session)

    async def list_sessions(self) -> AsyncIterator[Session]:
        """Yield the caller's sessions, most recently used first, page by page."""
        token = ""
        while True:
            request = pb.ListSessionsRequest(page_token=token)
            page: pb.ListSessionsResponse = await self._call("ListSessions", request, None)
            for session in page.sessions:
                yield turns.session(session)
            token = page.next_page_token
            if not token:
                return

    async def close_session(self, session: str) -> bool:
        """End a session for good, with its conversation. Return True if there was one."""
        request = pb.CloseSessionRequest(session_id=session)
        response: pb.CloseSessionResponse = await self._call("CloseSession", request, session)
        return response.HasField("session")

    async def usage(
        self, first_day: date | None = None, last_day: date | None = None
    ) -> list[DailyUsage]:
        """Return what the caller's turns used, by day in UTC and model; see `Client.usage`."""
        request = pb.GetUsageRequest(first_day=turns.day(first_day), last_day=turns.day(last_day))
        response: pb.GetUsageResponse = await self._call("GetUsage", request, None)
        return [turns.daily_usage(used) for used in response.days]

    async def _health(self, service: str, seconds: float) -> Health:
        metadata = self._transport.metadata(None)
        with self._transport.typed():
            ask = health.call_of(self._stubs.get(self._make_stubs).channels[1])
            found: Health = await ask(service, timeout=seconds, metadata=metadata)
        return found

    async def _found(self, seconds: float) -> Health | SamovarError:
        try:
            return await self._health(SESSION, seconds)
        except SamovarError as error:
            return error

    async def _respond(self, request: pb.RespondRequest) -> None:
        await self._call("Respond", request, request.session_id)

    async def _call(self, method: str, request: Any, session: str | None) -> Any:
        metadata = self._transport.metadata(session)
        with self._transport.typed():
            call = getattr(self._stubs.get(self._make_stubs).control, method)
            return await call(request, timeout=CONTROL_DEADLINE, metadata=metadata)

    def _begin(self, rejoin: Rejoin) -> Any:
        request, timeout = rejoin.request(), rejoin.left()
        metadata = self._transport.metadata(request.session_id, rejoin.trace)
        with self._transport.typed():
            stub = self._stubs.get(self._make_stubs).turns
            call = stub.Send if isinstance(request, pb.SendRequest) else stub.Attach
            return call(request, timeout=timeout, metadata=metadata)


class _Stubs(NamedTuple):
    """The channels of one event loop, and their stubs."""

    channels: tuple[grpc.aio.Channel, ...]
    # Any: the generated stub is declared for synchronous channels.
    turns: Any
    control: Any


class AsyncTurn:
    """The events of one turn: an async iterator, and a context manager that ends the call."""

    def __init__(
        self, client: AsyncClient, rejoin: Rejoin, on_permission: Decide | None = None
    ) -> None:
        self._client = client
        self._rejoin = rejoin
        self._on_permission = on_permission
        self._call: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None  # of the call
        self._closed = asyncio.Event()
        self._ready: deque[events.Event] = deque()
        client._open.add(self)

    def __repr__(self) -> str:
        begun, closed = self._call is not None, self._closed.is_set()
        return f"<samovar.AsyncTurn {self._rejoin.describe(begun=begun, closed=closed)}>"

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self._rejoin.turn_id

    @property
    def session(self) -> str:
        """The session's name."""
        return self._rejoin.session or "default"

    def __aiter__(self) -> AsyncIterator[events.Event]:
        return self

    async def __anext__(self) -> events.Event:
        # Not a generator: that would keep alive a turn to which there is no other reference.
        while not self._ready:
            if self._call is None:
                self._begin()
            elif self._loop is not asyncio.get_running_loop() and not self._closed.is_set():
                raise RuntimeError(_OTHER_LOOP)
            try:
                response = await self._call.read()
            except grpc.aio.AioRpcError as broken:
                await self._repeat(broken)
                continue
            except asyncio.CancelledError:
                if cancelled() or not self._closed.is_set():
                    raise
                raise self._ended() from None
            if response is grpc.aio.EOF:  # type: ignore[attr-defined]  # its stubs lack it
                raise StopAsyncIteration
            self._ready.extend(self._rejoin.take(response))
        event = self._ready.popleft()
        if self._on_permission is not None and isinstance(event, PermissionRequested):
            await self._decide(self._on_permission, event)
        return event

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # An abandoned call would go on for ever (grpc/grpc#43462).
        if self._call is not None:
            self._call.cancel()

    async def aclose(self) -> None:
        """Cancel the call unless it has ended. Idempotent."""
        self._closed.set()
        self._client._open.discard(self)
        if self._call is not None:
            self._call.cancel()

    async def _decide(self, decide: Decide, asked: PermissionRequested) -> None:
        try:
            decision = decide(asked)
            if inspect.isawaitable(decision):
                decision = await decision
            request = requests.decided(asked, self._rejoin.session, decision)
            with contextlib.suppress(PermissionNotFound):  # it expired, or another client was first
                await self._client._respond(request)
        except BaseException:
            await self.aclose()
            raise

    def _ended(self) -> SamovarError:
        if self._client._transport.closed:
            return ClientClosed()
        return CallBroken("the turn was closed", code=grpc.StatusCode.CANCELLED)

    def _begin(self) -> None:
        if self._closed.is_set() and not self._client._transport.closed:
            raise StopAsyncIteration
        self._loop = asyncio.get_running_loop()
        self._call = self._client._begin(self._rejoin)

    async def _repeat(self, broken: grpc.aio.AioRpcError) -> None:
        """Wait until the next call may be made, or raise what broke the last one."""
        if self._rejoin.finished:
            raise StopAsyncIteration  # every event was given: how the call ended adds nothing
        error = self._client._transport.error(broken)
        pause = None if self._closed.is_set() else self._rejoin.pause(error)
        if pause is None or await self._closes_within(pause):
            raise self._rejoin.last(error) from None
        self._call = None

    async def _closes_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)
        return self._closed.is_set()
