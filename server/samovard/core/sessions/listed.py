"""Sessions as their tenant sees them in a list: which the store is asked for, and their states.

Knows nothing of gRPC, of SQL or of how a process works.
"""

from collections.abc import Collection, Mapping

from samovard.core.records import SessionRecord
from samovard.core.sessions.session import Session, SessionInfo, SessionState


def named(
    live: Mapping[str, Session], state: SessionState | None
) -> tuple[Collection[str] | None, Collection[str]]:
    """Return the names of sessions in a state, or None and those in any other state.

    `live` are a tenant's sessions in memory; all others are suspended. None: any state.
    """
    if state is None:
        return None, ()
    suspended = state is SessionState.SUSPENDED
    found = [name for name, s in live.items() if (s.state() is state) is not suspended]
    return (None, found) if suspended else (found, ())


def info(record: SessionRecord, session: Session | None) -> SessionInfo:
    """Return what a record tells of a session, with its state if it is in memory."""
    if session is None:
        return SessionInfo(record, SessionState.SUSPENDED)
    return SessionInfo(record, session.state(), session.active())
