"""The synchronous client."""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from samovar import errors, events, requests, turns
from samovar.requests import Block, Options
from samovar.transport import DEFAULT_TARGET, Tls, Transport, tls_of
from samovar.turns import CONTROL_DEADLINE, Answer, AnswerMaker, Session
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc


class Client:
    """Talks to a samovard. A context manager; safe to use from several threads.

    `target` is `host:port` or `unix:/path`; `api_key` is sent as a bearer token, over TLS
    or within this machine only; `deadline`, in seconds, bounds each call that sets none.
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
        self._deadline = deadline
        self._closing = threading.Event()
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
        """Cancels what is open and closes the channels. Idempotent."""
        self._closing.set()
        for turn in list(self._open):
            turn.close()
        for channel in self._channels:
            channel.close()

    def send(self, content: Block | Sequence[Block], **options: Any) -> "Turn":
        """Runs one turn and gives its events as they come.

        The keywords are those of `Options`. Abandoning the iterator, or closing it,
        cancels the call, which interrupts the turn. A refusal that says when to repeat is
        repeated until the deadline, with the same turn id. Raises `SamovarError`.
        """
        chosen = Options(**options)
        return Turn(self, requests.send(content, chosen), chosen.deadline or self._deadline)

    def ask(self, content: Block | Sequence[Block], **options: Any) -> Answer:
        """Runs one turn and gives its final text and usage.

        Raises `TurnFailed` if the agent failed, and `SamovarError` as `send` does.
        """
        maker = AnswerMaker()
        with self.send(content, **options) as turn:
            for event in turn:
                maker.take(event)
        return maker.answer()

    def interrupt(self, turn_id: str, session: str | None = None) -> bool:
        """Stops a turn; tells whether it was still running."""
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
        """Lets a tool run that a `PermissionRequested` asks about.

        `updated_input` replaces the tool's input, where the profile allows that. Raises
        `PermissionNotFound` if nobody waits for this answer; the same one may be repeated.
        """
        self._call(
            self._control.Respond, requests.allow(permission_id, session, updated_input), session
        )

    def deny(
        self,
        permission_id: str,
        session: str | None = None,
        *,
        message: str = "",
        interrupt: bool = False,
    ) -> None:
        """Keeps a tool from running, and tells the agent why; or interrupts the turn, too.

        Raises as `allow` does.
        """
        request = requests.deny(permission_id, session, message, interrupt=interrupt)
        self._call(self._control.Respond, request, session)

    def get_session(self, session: str | None = None) -> Session:
        """Gets a session."""
        request = pb.GetSessionRequest(session_id=session or "")
        response: pb.GetSessionResponse = self._call(self._control.GetSession, request, session)
        return turns.session(response.session)

    def list_sessions(self) -> Iterator[Session]:
        """Gives the caller's sessions, most recently used first, page by page."""
        token = ""
        while True:
            request = pb.ListSessionsRequest(page_token=token)
            page: pb.ListSessionsResponse = self._call(self._control.ListSessions, request, None)
            yield from map(turns.session, page.sessions)
            token = page.next_page_token
            if not token:
                return

    def close_session(self, session: str) -> bool:
        """Ends a session for good; tells whether there was one."""
        request = pb.CloseSessionRequest(session_id=session)
        response: pb.CloseSessionResponse = self._call(self._control.CloseSession, request, session)
        return response.HasField("session")

    def _call(self, method: Callable[..., Any], request: Any, session: str | None) -> Any:
        try:
            return method(
                request, timeout=CONTROL_DEADLINE, metadata=self._transport.metadata(session)
            )
        except grpc.RpcError as error:
            raise errors.of(error) from None

    # What a turn needs.

    def _begin(self, request: pb.SendRequest, timeout: float | None) -> Any:
        metadata = self._transport.metadata(request.session_id)
        return self._turns.Send(request, timeout=timeout, metadata=metadata)

    def _wait(self, seconds: float) -> bool:
        return self._closing.wait(seconds)


class Turn:
    """The events of one turn: an iterator, and a context manager that ends the call.

    `turn_id` and `session` are known from the start.
    """

    def __init__(self, client: Client, request: pb.SendRequest, deadline: float | None) -> None:
        self._client = client
        self._request = request
        self._end = None if deadline is None else time.monotonic() + deadline
        self._call: Any = None
        self._lock = threading.Lock()
        self._closed = False
        self._ready: deque[events.Event] = deque()
        client._open.add(self)

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self._request.turn_id

    @property
    def session(self) -> str:
        """The session's name."""
        return self._request.session_id or "default"

    def __iter__(self) -> Iterator[events.Event]:
        return self

    def __next__(self) -> events.Event:
        # No generator: it would keep a turn alive that nobody else has.
        while not self._ready:
            try:
                response = next(self._call or self._begin())
            except grpc.RpcError as broken:
                self._repeat(broken)
            else:
                read = map(events.read, response.events)
                self._ready.extend(event for event in read if event is not None)
        return self._ready.popleft()

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
        """Cancels the call unless it has ended. Idempotent."""
        with self._lock:
            self._closed = True
            call = self._call
        if call is not None:
            call.cancel()
        self._client._open.discard(self)

    def _left(self) -> float | None:
        return None if self._end is None else max(self._end - time.monotonic(), 0.001)

    def _begin(self) -> Any:
        with self._lock:
            if self._closed:
                raise StopIteration
            self._call = self._client._begin(self._request, self._left())
            return self._call

    def _repeat(self, broken: grpc.RpcError) -> None:
        """Waits until the call may be repeated, or raises what broke it."""
        error = errors.of(broken)
        after = turns.repeat_after(error, self._left())
        if after is None or self._closed or self._client._wait(after):
            self.close()
            raise error from None
        self._call = None
