"""End calls and turns whose credential is no longer valid.

Knows which calls are served and which turns run, each with its caller. Knows nothing of what is
called, of SQL or of how a credential is first checked.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import structlog

from samovard.core.errors import CredentialInvalid, SamovarError, TenantDisabled
from samovard.edge import call_telemetry
from samovard.edge.identity import API_KEY, Caller
from samovard.edge.writes import Cut, cut_of_this_task
from samovard.store.tenants import InForce

#: Seconds between two looks. Together with `identity.CACHE_TIME`, a revoked key is without effect
#: after 5 s at the latest.
LOOK_EVERY = 2.0

# Any: grpc's own handler types are generic in its stubs only.
Context = grpc.aio.ServicerContext[Any, Any]

_log = structlog.get_logger("samovard.edge")


class Store(Protocol):
    """The store of keys and tenants."""

    async def in_force(self, key_ids: Collection[str], now: float) -> InForce:
        """Return which of these keys are valid, and every disabled tenant."""


class Turns(Protocol):
    """The turns that wait or run, each with the caller that sent it."""

    def senders(self) -> set[object]:
        """Return the senders of the turns."""

    def revoke(self, senders: Collection[object]) -> None:
        """Stop the turns of these senders."""


@dataclass(eq=False, slots=True)
class ServedCall:
    """A call that is served. `error`: why it is ended before its own end."""

    caller: Caller
    cut: Cut
    error: SamovarError | None = None

    def refusal(self) -> SamovarError | None:
        """Return why its task was cancelled by us, None if its caller has left. To be asked once.

        The caller may have left in the same moment.
        """
        task = asyncio.current_task()
        if self.error is None or task is None or task.uncancel() > 0:
            return None
        self.error.prompt_written = call_telemetry.prompt_written()
        return self.error

    def end(self, error: SamovarError) -> None:
        """Cancel its task, unless that is done already."""
        if self.error is None:
            self.error = error
            self.cut.end()


class Revocation:
    """The calls that are being served, and the state of their credentials.

    `look` must be called periodically; each look is one query of the store.
    """

    def __init__(self, store: Store, turns: Turns, wall: Callable[[], float]) -> None:
        self._store = store
        self._turns = turns
        self._wall = wall
        self._calls: set[ServedCall] = set()
        self._disabled: frozenset[str] = frozenset()
        # Keys that the last look found revoked: until the next one, what was read of them before
        # may still be in the cache of identities.
        self._revoked: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"<Revocation calls={len(self._calls)} disabled={len(self._disabled)}>"

    def check(self, caller: Caller) -> None:
        """Raise `TenantDisabled` or `CredentialInvalid` for a caller that the last look refused."""
        if (error := self._refusal(caller)) is not None:
            raise error

    def serves(self, tenant: str) -> bool:
        """True if a call of the tenant is being served."""
        return any(call.caller.tenant == tenant for call in self._calls)

    def begin(self, caller: Caller) -> ServedCall:
        """Return the call that this task serves: it is cancelled once it may not go on."""
        call = ServedCall(caller, cut_of_this_task())
        self._calls.add(call)
        return call

    def end(self, call: ServedCall) -> None:
        """Forget a call that is over."""
        self._calls.discard(call)

    async def look(self) -> None:
        """Query the store once, and end the calls and turns whose credential is not valid.

        Raise `NoProcess` (store-down), and end none, if the store does not answer.
        """
        senders = {sender for sender in self._turns.senders() if isinstance(sender, Caller)}
        asked = {c.credential_id for c in senders | self._callers() if c.method == API_KEY}
        now = self._wall()
        in_force = await self._store.in_force(asked, now)
        self._disabled = in_force.disabled
        self._revoked = frozenset(asked - in_force.keys)
        self._turns.revoke({sender for sender in senders if self._refusal(sender)})
        for call in self._calls:
            # A token may expire before the next look: no call outlives it.
            over = call.caller.expires_at <= now + LOOK_EVERY
            error = self._refusal(call.caller) or (CredentialInvalid() if over else None)
            if error is not None and call.error is None:
                _log.info("call.revoked", tenant=call.caller.tenant, reason=error.reason)
                call.end(error)

    def _refusal(self, caller: Caller) -> SamovarError | None:
        if caller.tenant in self._disabled:
            return TenantDisabled()
        revoked = caller.method == API_KEY and caller.credential_id in self._revoked
        return CredentialInvalid() if revoked else None

    def _callers(self) -> set[Caller]:
        return {call.caller for call in self._calls}
