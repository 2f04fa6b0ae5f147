"""A conversation: the session that a message goes to, and how its turn is stopped.

Knows the client. Knows nothing of terminals: a `View` shows everything.
"""

import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from samovar.chat.ahead import Ahead
from samovar.client import Client, Turn
from samovar.errors import (
    CallBroken,
    PermissionNotFound,
    SamovarError,
    SessionNotFound,
    TurnWithdrawn,
)
from samovar.events import (
    Event,
    Outcome,
    PermissionRequested,
    PermissionResolved,
    Resolution,
    TurnFinished,
)
from samovar.reach import Place
from samovar.requests import SendOptions
from samovar.turns import Session
from samovar.words import said

LEFT = "left: the service interrupts the turn"
#: How a request ended that was not answered here.
OVER = {
    Resolution.ALLOWED: "it was allowed elsewhere",
    Resolution.DENIED: "it was denied elsewhere",
    Resolution.EXPIRED: "denied: there was no answer in time",
    Resolution.WITHDRAWN: "the agent no longer asks",
}

Take = Callable[[Event], None]
#: A context manager for the time of a turn: calls the first action at the first request to stop,
#: the second action at the second, in a thread that may wait.
Stopping = Callable[[Callable[[], None], Callable[[], None]], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A decision about a tool that needs permission; `why` is for the agent."""

    allowed: bool
    why: str = ""


#: Returns the verdict on a request, or None once it learns that the request is resolved.
Decide = Callable[[PermissionRequested, Callable[[], bool]], Verdict | None]


class View(Protocol):
    """The interface to what a person sees."""

    def tell(self, line: str) -> None:
        """Show a line about the conversation."""

    def list(self, sessions: Iterable[Session], current: str) -> None:
        """Show sessions."""

    def turn(self) -> AbstractContextManager[Take]:
        """Show a turn. The context manager yields a function that takes its events."""

    def asking(self) -> AbstractContextManager[None]:
        """Keep the drawing of the turn from covering a question."""

    def interrupting(self) -> None:
        """Show that the turn was asked to stop. Thread-safe."""


def new_name() -> str:
    """Return the name of a new session."""
    return f"chat-{secrets.token_hex(4)}"


class Conversation:
    """Messages to one session after another.

    `begin` and `open` may raise `SamovarError`; an error in a turn is shown instead. `profile`,
    `model` and `permission_policy` are for sessions that it creates; `decide` answers permission
    requests.
    """

    def __init__(
        self,
        client: Client,
        view: View,
        stopping: Stopping,
        decide: Decide,
        *,
        place: Place,
        profile: str = "",
        model: str = "",
        permission_policy: str = "",
    ) -> None:
        self._client = client
        self._view = view
        self._stopping = stopping
        self._decide = decide
        self._place = place
        self._spec: SendOptions = {
            "profile": profile,
            "model": model,
            "permission_policy": permission_policy,
        }
        self._spec_now = self._spec
        self._answered: set[str] = set()  # permission ids
        self.session = ""

    def begin(self, name: str | None = None) -> None:
        """Begin with a session, an existing or a new one. Raise `SamovarError`."""
        self.session = name or new_name()
        found = self._find(self.session)
        if found is not None:
            self._view.tell(f"session {self.session} goes on: {_turns(found)} so far")
        else:
            again = f"samovar chat --session {self.session}"
            self._view.tell(f'session {self.session}: "{again}" continues it')

    def new(self, name: str = "") -> None:
        """Switch to a session that does not exist yet."""
        name = name or new_name()
        if self._find(name) is not None:
            self._view.tell(f"there is a session {name} already: /session {name} goes to it")
            return
        self.session, self._spec_now = name, self._spec
        self._view.tell(f"session {name}")

    def open(self, name: str) -> None:
        """Switch to a session that exists."""
        found = self._find(name)
        if found is None:
            self._view.tell(f"there is no session {name}: /new {name} begins it")
            return
        self.session, self._spec_now = name, {}
        self._view.tell(f"session {name} goes on: {_turns(found)} so far")

    def list(self) -> None:
        """Show the caller's sessions."""
        self._view.list(self._client.list_sessions(), self.session)

    def send(self, text: str) -> bool:
        """Run one turn to its end and show any error. Return True if it was completed."""
        finished: TurnFinished | None = None
        try:
            # No deadline: the profile's bounds end the turn and keep-alive ends a dead connection;
            # with one, a refusal would be retried without the person being told.
            options: SendOptions = {**self._spec_now, "session": self.session}
            turn = self._client.send(text, **options)
            with turn, self._stops(turn), self._view.turn() as take:
                for event in (events := Ahead(turn)):
                    take(event)
                    self._permit(turn, event, events)
                    finished = event if isinstance(event, TurnFinished) else finished
        except SamovarError as error:
            self._view.tell(self._said(error))
            return False
        if finished is None:
            self._view.tell(LEFT)
        return finished is not None and finished.outcome is Outcome.COMPLETED

    def _permit(self, turn: Turn, event: Event, events: Ahead) -> None:
        """Answer a permission request, or show how it ended without an answer."""
        if isinstance(event, PermissionRequested):
            with events.resolving(event.permission_id) as over:
                verdict = self._decide(event, over)
                if verdict is not None and self._respond(turn, event.permission_id, verdict):
                    self._answered.add(event.permission_id)
        elif isinstance(event, PermissionResolved) and event.permission_id not in self._answered:
            self._view.tell(OVER.get(event.resolution, "it is over"))

    def _respond(self, turn: Turn, permission_id: str, verdict: Verdict) -> bool:
        try:
            if verdict.allowed:
                self._client.allow(permission_id, turn.session)
            else:
                self._client.deny(permission_id, turn.session, message=verdict.why)
        except PermissionNotFound:
            return False
        return True

    def _stops(self, turn: Turn) -> AbstractContextManager[None]:
        def interrupt() -> None:
            self._view.interrupting()
            try:
                self._client.interrupt(turn.turn_id, turn.session)
            except SamovarError:
                turn.close()  # the service interrupts a turn whose stream is closed

        return self._stopping(interrupt, turn.close)

    def _find(self, name: str) -> Session | None:
        try:
            return self._client.get_session(name)
        except SessionNotFound:
            return None

    def _said(self, error: SamovarError) -> str:
        if isinstance(error, TurnWithdrawn):
            return "interrupted before it began"
        if isinstance(error, CallBroken) and error.code.name == "CANCELLED":
            return LEFT
        return said(error, self._place, self.session)


def _turns(session: Session) -> str:
    return "1 turn" if session.turn_count == 1 else f"{session.turn_count} turns"
