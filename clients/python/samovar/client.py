"""The synchronous client."""

import contextlib
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from types import TracebackType
from typing import Any, Self, Unpack

import grpc

from samovar import bounds, events, health, requests, turns
from samovar.errors import PermissionNotFound, SamovarError
from samovar.events import PermissionRequested
from samovar.health import SESSION, Boot, Health
from samovar.rejoin import Contact, Rejoin
from samovar.requests import Block, Decision, Options, SendOptions
from samovar.transport import DEFAULT_TARGET, Tls, Transport, tls_of
from samovar.turns import CONTROL_DEADLINE, Answer, AnswerMaker, DailyUsage, Session
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc

Decide = Callable[[PermissionRequested], Decision]


class Client:
    """A client of a samovard. A context manager; safe to use from several threads.

    `target` is `host:port` or `unix:/path`; `api_key` is sent as a bearer token, over TLS
    or within this machine only; `tls` is True for the authorities that gRPC brings along;
    `deadline`, in seconds, bounds each turn that sets none.
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
        self._open: weakref.WeakSet[Turn] = weakref.WeakSet()
        self._channels = [self._channel(control=False), self._channel(control=True)]
        self._turns, self._control = (
            session_pb2_grpc.SessionStub(channel) for channel in self._channels
        )

    def _channel(self, *, control: bool) -> grpc.Channel:
        options = self._transport.options(control=control)
        credentials = self._transport.credentials
        if credentials is None:
            return grpc.insecure_channel(self._transport.target, options)
        return grpc.secure_channel(self._transport.target, credentials, options)

    def __repr__(self) -> str:
        return f"<samovar.Client {self._transport}>"

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
        """Cancel what is open and close the channels: later calls raise `ClientClosed`."""
        self._transport.closed = True
        for turn in list(self._open):
            turn.close()
        for channel in self._channels:
            channel.close()

    def health(self, service: str = SESSION) -> Health:
        """Return the health of a service; the default serves if turns are served."""
        return self._health(service, CONTROL_DEADLINE)

    def wait(self, timeout: float = 60.0) -> None:
        """Return once the service serves turns, for programs that start together with it.

        Raise what kept it from that if `timeout` seconds pass, and at once what will not pass.
        """
        boot = Boot(bounds.seconds("timeout", timeout))
        while (pause := boot.pause(self._found(boot.left()))) is not None:
            time.sleep(pause)

    def send(
        self,
        content: Block | Sequence[Block],
        *,
        on_permission: Decide | None = None,
        **options: Unpack[SendOptions],
    ) -> "Turn":
        """Run one turn and return an iterator of its events.

        The keywords are those of `Options`. Abandoning the iterator, or closing it,
        cancels the call, which interrupts the turn. A refusal that says when to repeat is
        repeated until the deadline, with the same turn id; a stream that breaks is joined
        again where it broke, and yields every event once. `on_permission` is called with each
        `PermissionRequested` before that is yielded, and what it returns is the answer; what it
        raises ends the turn. Iterating raises `SamovarError`.
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
        return Turn(self, rejoin, on_permission)

    def attach(
        self,
        turn_id: str,
        session: str | None = None,
        after_sequence: int = 0,
        *,
        deadline: float | None = None,
    ) -> "Turn":
        """Return an iterator of a turn's events past `after_sequence`.

        The turn may wait, run or have ended not long ago. Leaving the iterator has no effect on
        it. A stream that breaks is joined again as that of `send` is. Iterating raises
        `SamovarError`: `TurnNotFound`, `EventsExpired` if the next event is gone, or what
        ended the turn.
        """
        rejoin = Rejoin(
            session or "",
            turn_id,
            self._contact,
            after=bounds.count("after_sequence", after_sequence, 64),
            deadline=bounds.deadline(deadline, self._deadline),
        )
        return Turn(self, rejoin)

    def ask(
        self,
        content: Block | Sequence[Block],
        *,
        on_permission: Decide | None = None,
        **options: Unpack[SendOptions],
    ) -> Answer:
        """Run one turn and return its final text and usage. The keywords are those of `send`.

        Raise `TurnFailed` if the agent failed, and `SamovarError` as `send` does.
        """
        maker = AnswerMaker()
        with self.send(content, on_permission=on_permission, **options) as turn:
            for event in turn:
                maker.take(event)
        return maker.answer()

    def interrupt(self, turn_id: str, session: str | None = None) -> bool:
        """Interrupt a turn. Return True if it was still running."""
        request = pb.InterruptRequest(session_id=session or "", turn_id=turn_id)
        response: pb.InterruptResponse = self._call(self._control.Interrupt, request, session)
        return response.was_running

    def allow(
        self,
        permission_id: str,
        session: str | None = None,
        *,
        updated_input: Mapping[str, Any] | None = None,
    ) -> None:
        """Let the tool run that a `PermissionRequested` asks about.

        `updated_input` replaces the tool's input, where the profile allows that. Raise
        `PermissionNotFound` if the request is over; the same answer may be repeated.
        """
        self._respond(requests.allow(permission_id, session, updated_input))

    def deny(
        self,
        permission_id: str,
        session: str | None = None,
        *,
        message: str = "",
        interrupt: bool = False,
    ) -> None:
        """Keep the tool from running, and tell the agent why; `interrupt` ends the turn, too.

        Raise as `allow` does.
        """
        self._respond(requests.deny(permission_id, session, message, interrupt=interrupt))

    def get_session(self, session: str | None = None) -> Session:
        """Return a session. Raise `SessionNotFound` if there is none."""
        request = pb.GetSessionRequest(session_id=session or "")
        response: pb.GetSessionResponse = self._call(self._control.GetSession, request, session)
        return turns.session(response.session)

    def list_sessions(self) -> Iterator[Session]:
        """Yield the caller's sessions, most recently used first, page by page."""
        token = ""
        while True:
            request = pb.ListSessionsRequest(page_token=token)
            page: pb.ListSessionsResponse = self._call(self._control.ListSessions, request, None)
            yield from map(turns.session, page.sessions)
            token = page.next_page_token
            if not token:
                return

    def close_session(self, session: str) -> bool:
        """End a session for good, with its conversation. Return True if there was one."""
        request = pb.CloseSessionRequest(session_id=session)
        response: pb.CloseSessionResponse = self._call(self._control.CloseSession, request, session)
        return response.HasField("session")

    def usage(
        self, first_day: date | None = None, last_day: date | None = None
    ) -> list[DailyUsage]:
        """Return what the caller's turns used, by day in UTC and model.

        Both days are included: by default the 30 days before today, and today; at most 366 days.
        """
        request = pb.GetUsageRequest(first_day=turns.day(first_day), last_day=turns.day(last_day))
        response: pb.GetUsageResponse = self._call(self._control.GetUsage, request, None)
        return [turns.daily_usage(used) for used in response.days]

    def _respond(self, request: pb.RespondRequest) -> None:
        self._call(self._control.Respond, request, request.session_id)

    def _call(self, method: Callable[..., Any], request: Any, session: str | None) -> Any:
        metadata = self._transport.metadata(session)
        with self._transport.typed():
            return method(request, timeout=CONTROL_DEADLINE, metadata=metadata)

    def _health(self, service: str, seconds: float) -> Health:
        metadata = self._transport.metadata(None)
        with self._transport.typed():
            ask = health.call_of(self._channels[1])
            found: Health = ask(service, timeout=seconds, metadata=metadata)
        return found

    def _found(self, seconds: float) -> Health | SamovarError:
        try:
            return self._health(SESSION, seconds)
        except SamovarError as error:
            return error

    # What a `Turn` needs.

    def _begin(self, rejoin: Rejoin) -> Any:
        request, timeout = rejoin.request(), rejoin.left()
        metadata = self._transport.metadata(request.session_id, rejoin.trace)
        with self._transport.typed():
            if isinstance(request, pb.SendRequest):
                return self._turns.Send(request, timeout=timeout, metadata=metadata)
            return self._turns.Attach(request, timeout=timeout, metadata=metadata)


class Turn:
    """The events of one turn: an iterator, and a context manager that ends the call.

    `turn_id` and `session` are known from the start.
    """

    def __init__(self, client: Client, rejoin: Rejoin, on_permission: Decide | None = None) -> None:
        self._client = client
        self._rejoin = rejoin
        self._on_permission = on_permission
        self._call: Any = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._ready: deque[events.Event] = deque()
        client._open.add(self)

    def __repr__(self) -> str:
        begun, closed = self._call is not None, self._closed.is_set()
        return f"<samovar.Turn {self._rejoin.describe(begun=begun, closed=closed)}>"

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self._rejoin.turn_id

    @property
    def session(self) -> str:
        """The session's name."""
        return self._rejoin.session or "default"

    def __iter__(self) -> Iterator[events.Event]:
        return self

    def __next__(self) -> events.Event:
        # Not a generator: that would keep alive a turn to which there is no other reference.
        while not self._ready:
            try:
                response = next(self._call or self._begin())
            except grpc.RpcError as broken:
                self._repeat(broken)
            else:
                self._ready.extend(self._rejoin.take(response))
        event = self._ready.popleft()
        if self._on_permission is not None and isinstance(event, PermissionRequested):
            self._decide(self._on_permission, event)
        return event

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # An abandoned call would go on for ever (grpc/grpc#43462).
        self.close()

    def close(self) -> None:
        """Cancel the call unless it has ended. Idempotent."""
        with self._lock:
            self._closed.set()
            call = self._call
        if call is not None:
            call.cancel()
        self._client._open.discard(self)

    def _decide(self, decide: Decide, asked: PermissionRequested) -> None:
        try:
            request = requests.decided(asked, self._rejoin.session, decide(asked))
            with contextlib.suppress(PermissionNotFound):  # it expired, or another client was first
                self._client._respond(request)
        except BaseException:
            self.close()
            raise

    def _begin(self) -> Any:
        with self._lock:
            if self._closed.is_set() and not self._client._transport.closed:
                raise StopIteration
            self._call = self._client._begin(self._rejoin)
            return self._call

    def _repeat(self, broken: grpc.RpcError) -> None:
        """Wait for the next call's time, or raise what broke the last one."""
        if self._rejoin.finished:
            raise StopIteration  # every event was given: how the call ended adds nothing
        error = self._client._transport.error(broken)
        pause = None if self._closed.is_set() else self._rejoin.pause(error)
        if pause is None or self._closed.wait(pause):
            self.close()
            raise self._rejoin.last(error) from None
        self._call = None


def ask(
    content: Block | Sequence[Block],
    *,
    target: str | None = None,
    api_key: str | None = None,
    tls: Tls | bool | None = None,
    on_permission: Decide | None = None,
    **options: Unpack[SendOptions],
) -> Answer:
    """Run one turn with a client of its own, and return its answer. See `Client.ask`.

    Without `target` and `api_key` it takes `SAMOVAR_TARGET` and `SAMOVAR_API_KEY`, as the command
    line does. A program that asks more than once keeps a `Client`.
    """
    target = target or os.environ.get("SAMOVAR_TARGET") or DEFAULT_TARGET
    api_key = api_key or os.environ.get("SAMOVAR_API_KEY")
    with Client(target, api_key=api_key, tls=tls) as client:
        return client.ask(content, on_permission=on_permission, **options)
