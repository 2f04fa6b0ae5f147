"""The directory of the sessions in memory, by tenant and name.

The pool tells it what happens to their processes. It does not create sessions.
"""

from collections.abc import Iterator

from samovard.core.pool.background import BackgroundWork
from samovard.core.records import SessionKey
from samovard.core.sessions.session import Session
from samovard.core.sessions.turn_runner import TurnRunner
from samovard.core.sessions.write_behind import WriteBehindRecords


class Directory:
    """The sessions in memory. It may change while it is iterated."""

    def __init__(self, records: WriteBehindRecords, background: BackgroundWork) -> None:
        self._records = records
        self._background = background
        self._sessions: dict[SessionKey, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def get(self, key: SessionKey) -> Session | None:
        """Return a session, or None if it is not in memory."""
        return self._sessions.get(key)

    def enter(self, session: Session) -> bool:
        """Add a session unless another one has its key. Return True if it is in the directory."""
        # In one step: two requests may have made the same session at the same time.
        return self._sessions.setdefault(session.key, session) is session

    def drop(self, session: Session) -> None:
        """Remove a session, unless another one has its key by now."""
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]

    def of(self, tenant: str) -> dict[str, Session]:
        """Return a tenant's sessions by name."""
        return {key.session: s for key, s in self._sessions.items() if key.tenant == tenant}

    def unended(self) -> list[TurnRunner]:
        """Return the runners of all turns that wait or run."""
        return [runner for session in self for runner in session.unended()]

    def forget_unused(self, key: SessionKey) -> None:
        """Remove a session that has no turns, unless it is stored and has a process."""
        # Nothing is lost: the store has the session if it was ever created.
        session = self._sessions.get(key)
        if session is None or session.runners:
            return
        if not session.created or session.process() is None:
            self.drop(session)

    # Called by the pool.

    def on_reaped(self, key: SessionKey) -> None:
        """Remove a session that has neither turns nor a process any more."""
        self.forget_unused(key)

    def on_foreign(self, key: SessionKey) -> None:
        """Block a session whose process sent a frame of another session."""
        session = self._sessions.get(key)
        if session is not None:
            session.conversation.block()  # now, before any other turn is admitted
            if session.created:  # it must stay blocked after a restart
                self._background.spawn(self._records.save(session.record), "block")
