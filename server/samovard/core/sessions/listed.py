"""Lists of sessions: which ones to query for a state, and the state of each result."""

from collections.abc import Collection, Mapping

from samovard.core.records import SessionRecord
from samovard.core.sessions.session import Session, SessionInfo, SessionState


def named(
    live: Mapping[str, Session], state: SessionState | None
) -> tuple[Collection[str] | None, Collection[str]]:
    """Return the `only` and `but` arguments of `Records.list` for a state.

    `live` are a tenant's sessions in memory; all others are suspended. None: any state.
    """
    if state is None:
        return None, ()
    suspended = state is SessionState.SUSPENDED
    found = [name for name, s in live.items() if (s.state() is state) is not suspended]
    return (None, found) if suspended else (found, ())


def info(record: SessionRecord, session: Session | None) -> SessionInfo:
    """Return a stored session for its tenant; `session` is the same in memory, or None."""
    if session is None:
        return SessionInfo(record, SessionState.SUSPENDED)
    return SessionInfo(record, session.state(), session.active())
