"""A conversation: which session a message goes to, and how its turn is stopped.

Knows the client. Knows nothing of terminals: what there is to see goes to a `View`.
"""

import secrets
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from samovar.client import Client, Turn
from samovar.errors import CallBroken, SamovarError, SessionNotFound, TurnWithdrawn
from samovar.events import Event, Outcome, TurnFinished
from samovar.turns import Session
from samovar.words import said

LEFT = "left: the service interrupts the turn"

Take = Callable[[Event], None]
#: Opened for the time of a turn; calls the first action at the first wish to stop the turn,
#: the second at the second, in a thread that may wait.
Stopping = Callable[[Callable[[], None], Callable[[], None]], AbstractContextManager[None]]


class View(Protocol):
    """Where there is something to see."""

    def tell(self, line: str) -> None:
        """Shows a line about the conversation."""

    def list(self, sessions: Iterable[Session], current: str) -> None:
        """Shows sessions."""

    def turn(self) -> AbstractContextManager[Take]:
        """Shows a turn: gives what takes its events."""

    def interrupting(self) -> None:
        """Shows that the turn is asked to stop. May be called in any thread."""


def new_name() -> str:
    """Makes the name of a new session."""
    return f"chat-{secrets.token_hex(4)}"


class Conversation:
    """Messages to one session after another.

    `begin` and `open` may raise `SamovarError`; whatever goes wrong in a turn is told.
    `profile` and `model` are those of the sessions that it makes.
    """

    def __init__(
        self,
        client: Client,
        view: View,
        stopping: Stopping,
        *,
        target: str,
        profile: str = "",
        model: str = "",
    ) -> None:
        self._client = client
        self._view = view
        self._stopping = stopping
        self._target = target
        self._spec = {"profile": profile, "model": model}
        self._spec_now = self._spec
        self.session = ""

    def begin(self, name: str | None = None) -> None:
        """Begins with a session, one that exists or a new one; raises `SamovarError`."""
        self.session = name or new_name()
        found = self._find(self.session)
        if found is not None:
            self._view.tell(f"session {self.session} goes on: {_turns(found)} so far")
        else:
            again = f"samovar chat --session {self.session}"
            self._view.tell(f'session {self.session}: "{again}" continues it')

    def new(self, name: str = "") -> None:
        """Goes to a session that does not exist yet."""
        name = name or new_name()
        if self._find(name) is not None:
            self._view.tell(f"there is a session {name} already: /session {name} goes to it")
            return
        self.session, self._spec_now = name, self._spec
        self._view.tell(f"session {name}")

    def open(self, name: str) -> None:
        """Goes to a session that exists."""
        found = self._find(name)
        if found is None:
            self._view.tell(f"there is no session {name}: /new {name} begins it")
            return
        self.session, self._spec_now = name, {}
        self._view.tell(f"session {name} goes on: {_turns(found)} so far")

    def list(self) -> None:
        """Shows the caller's sessions."""
        self._view.list(self._client.list_sessions(), self.session)

    def send(self, text: str) -> bool:
        """Runs one turn to its end and tells what went wrong; whether it was completed."""
        finished: TurnFinished | None = None
        try:
            # No deadline: the profile's bounds end the turn and keep-alive ends a dead line;
            # with one, a refusal would be repeated without the person being told.
            turn = self._client.send(text, session=self.session, **self._spec_now)
            with turn, self._stops(turn), self._view.turn() as take:
                for event in turn:
                    take(event)
                    finished = event if isinstance(event, TurnFinished) else finished
        except SamovarError as error:
            self._view.tell(self._said(error))
            return False
        if finished is None:
            self._view.tell(LEFT)
        return finished is not None and finished.outcome is Outcome.COMPLETED

    def _stops(self, turn: Turn) -> AbstractContextManager[None]:
        def interrupt() -> None:
            self._view.interrupting()
            try:
                self._client.interrupt(turn.turn_id, turn.session)
            except SamovarError:
                turn.close()  # the service interrupts a turn that is left

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
        return said(error, self._target)


def _turns(session: Session) -> str:
    return "1 turn" if session.turn_count == 1 else f"{session.turn_count} turns"
