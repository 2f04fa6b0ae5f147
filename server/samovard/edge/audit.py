"""The audit record of the call that is being served.

Knows where the record is kept and which facts of a call it contains. Knows nothing of how a line is
written.
"""

from contextvars import ContextVar

from samovard.audit.trail import AuditedCall
from samovard.core.errors import NoProcess, SamovarError
from samovard.edge.identity import Caller

_current: ContextVar[AuditedCall | None] = ContextVar("record", default=None)


def begin(record: AuditedCall) -> None:
    """Set the record of the call that this context serves; called by the gate only."""
    _current.set(record)


def known(caller: Caller) -> None:
    """Record the caller."""
    if (record := _current.get()) is not None:
        record.known(caller.tenant, caller.subject, caller.method, caller.credential_id)


def came_from(peer: str) -> None:
    """Record the kind of the peer's address, in gRPC's word for it."""
    if (record := _current.get()) is not None:
        record.peer = peer.partition(":")[0]


def names(session: str = "", turn: str = "", target: str = "") -> None:
    """Record what a valid request is about."""
    if (record := _current.get()) is not None:
        record.names(session, turn, target)


async def allow() -> None:
    """Write that the call may act, before it does. Raise `NoProcess` if that fails."""
    if (record := _current.get()) is not None and not record.decided:
        await record.allow()


async def denied(error: SamovarError) -> SamovarError:
    """Write why the call fails.

    Return the error to answer with: this one, or that of the audit log.
    """
    if (record := _current.get()) is not None:
        try:
            await record.deny(error)
        except NoProcess as down:
            return down
    return error


async def refused(reason: str) -> None:
    """Write that the call is refused. Raise `NoProcess` (audit-down) if that fails."""
    if (record := _current.get()) is not None:
        await record.refuse(reason)


def left() -> None:
    """Write that the caller left before it was answered."""
    if (record := _current.get()) is not None:
        record.left()
