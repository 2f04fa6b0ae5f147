"""The sessions that are in memory, each once, by tenant and name.

Is told by the pool what befalls their processes. Knows nothing of how a session is made.
"""

from collections.abc import Iterator

from samovard.core.pool.background import BackgroundWork
from samovard.core.records import SessionKey
from samovard.core.sessions.session import Session
from samovard.core.sessions.write_behind import WriteBehindRecords


class Directory:
    """The sessions in memory. Iterating it is safe while it changes."""

    def __init__(self, records: WriteBehindRecords, background: BackgroundWork) -> None:
        self._records = records
        self._background = background
        self._sessions: dict[SessionKey, Session] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(list(self._sessions.values()))

    def get(self, key: SessionKey) -> Session | None:
        """Return a session, None if it is not in memory."""
        return self._sessions.get(key)

    def enter(self, session: Session) -> bool:
        """Take a session in unless another one has its place. True if it is the one there."""
        return self._sessions.setdefault(session.key, session) is session

    def drop(self, session: Session) -> None:
        """Forget a session, unless another one has its place."""
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]

    def of(self, tenant: str) -> dict[str, Session]:
        """Return a tenant's sessions by name."""
        return {key.session: s for key, s in self._sessions.items() if key.tenant == tenant}

    def forget_unused(self, key: SessionKey) -> None:
        """Forget a session without turns; the store has it, if it was ever created."""
        session = self._sessions.get(key)
        if session is None or session.runners:
            return
        if not session.created or session.process() is None:
            self.drop(session)

    # What the pool says.

    def on_reaped(self, key: SessionKey) -> None:
        """Forget a session that has neither turns nor a process any more."""
        self.forget_unused(key)

    def on_foreign(self, key: SessionKey) -> None:
        """Block a session whose process spoke for another."""
        session = self._sessions.get(key)
        if session is not None:
            session.conversation.block()
            if session.created:
                self._background.spawn(self._records.save(session.record), "block")
