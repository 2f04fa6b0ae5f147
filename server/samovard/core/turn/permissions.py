"""The permission requests of one turn. Each of them ends exactly once.

Clients never learn the agent's own id of a request, and the agent never learns the clients' id.
This module does not depend on the clients or on the agent's protocol.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from samovard.core.errors import PermissionNotFound
from samovard.core.events import Event, PermissionRequested, PermissionResolved, Resolution
from samovard.core.process import Allow, Deny, PermissionDecision
from samovard.telemetry.stages import Stages

EXPIRED = "nobody answered in time whether this tool may be used"


_log = structlog.get_logger("samovard.turn")

_OURS = (PermissionRequested, PermissionResolved)


@dataclass(frozen=True, slots=True)
class _Open:
    """An open request. `expiry` is the timer that denies it."""

    request_id: str
    permission_id: str
    parent_tool_use_id: str
    expiry: asyncio.TimerHandle


class Owner(Protocol):
    """The runner of the turn, which talks to the agent."""

    def on_decided(self, request_id: str, decision: PermissionDecision) -> None:
        """Called with the answer to a request and the agent's own id of it."""

    def on_waiting(self, *, waits: bool) -> None:
        """Called when the turn starts or stops waiting for an answer."""


class Permissions:
    """The permission requests of one turn.

    A request is denied after `timeout` seconds. `tell` is called with events for followers.
    """

    def __init__(
        self, stages: Stages, timeout: float, owner: Owner, tell: Callable[[Event], None]
    ) -> None:
        self._stages = stages
        self._timeout = timeout
        self._owner = owner
        self._tell = tell
        self._open: dict[str, _Open] = {}  # by permission id
        self._ids: dict[str, str] = {}  # permission ids of open requests by the agent's id
        self._answers: dict[str, bytes] = {}  # digests of the answers of clients
        self._closed = False
        self._since = 0  # when the present wait began, in nanoseconds
        self._waited: int | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"open={len(self._open)}"
        return f"<Permissions {state} answered={len(self._answers)}>"

    @property
    def open(self) -> bool:
        """True if the turn waits for an answer."""
        return bool(self._open)

    @property
    def waited(self) -> int | None:
        """How long any request was open, in nanoseconds; None if there never was one."""
        if self._open and self._waited is not None:
            return self._waited + self._stages.now() - self._since
        return self._waited

    def take(self, events: Sequence[Event]) -> Sequence[Event]:
        """Process events of the agent, and return the events for followers.

        Requests that arrive after `close` are denied and not shown to any client.
        """
        # The usual case, up to some thousand times a second, needs no copy.
        if not any(type(event) in _OURS for event in events):
            return events
        seen: list[Event] = []
        for event in events:
            if isinstance(event, PermissionRequested):
                seen += self._requested(event)
            elif isinstance(event, PermissionResolved):
                permission_id = self._ids.get(event.permission_id)
                if permission_id is not None:
                    seen.append(self._resolved(permission_id, Resolution.WITHDRAWN))
            else:
                seen.append(event)
        return seen

    def _requested(self, event: PermissionRequested) -> list[Event]:
        request_id = event.permission_id
        if self._closed:
            self._owner.on_decided(request_id, Deny())
            return []
        if request_id in self._ids:  # the agent repeated an open request
            return []
        if not self._open:
            self._since = self._stages.now()
            self._waited = self._waited or 0
            self._owner.on_waiting(waits=True)
        permission_id = str(uuid.uuid4())
        expiry = asyncio.get_running_loop().call_later(self._timeout, self._expire, permission_id)
        self._open[permission_id] = _Open(
            request_id, permission_id, event.parent_tool_use_id, expiry
        )
        self._ids[request_id] = permission_id
        until = self._stages.wall_now() + self._timeout
        return [msgspec.structs.replace(event, permission_id=permission_id, expire_time=until)]

    def respond(self, permission_id: str, decision: PermissionDecision) -> bool:
        """Answer a request. Return False if it already had an equal answer.

        Raise `PermissionNotFound` if the request is not open, unless its answer was equal.
        """
        # A digest, because a decision may hold a large input and is kept as long as the turn.
        digest = hashlib.sha256(msgspec.json.encode(decision)).digest()
        if self._answers.get(permission_id) == digest:
            return False
        asked = self._open.get(permission_id)
        if asked is None:
            raise PermissionNotFound
        self._answers[permission_id] = digest
        allowed = isinstance(decision, Allow)
        self._end(asked, Resolution.ALLOWED if allowed else Resolution.DENIED, decision)
        return True

    def close(self) -> None:
        """Withdraw all open requests, and accept no new ones. Idempotent."""
        self._closed = True
        for permission_id in tuple(self._open):
            self._tell(self._resolved(permission_id, Resolution.WITHDRAWN))

    def _expire(self, permission_id: str) -> None:
        self._end(self._open[permission_id], Resolution.EXPIRED, Deny(EXPIRED))

    def _end(self, asked: _Open, resolution: Resolution, decision: PermissionDecision) -> None:
        event = self._resolved(asked.permission_id, resolution)
        self._owner.on_decided(asked.request_id, decision)
        self._tell(event)

    def _resolved(self, permission_id: str, resolution: Resolution) -> PermissionResolved:
        asked = self._open.pop(permission_id)
        asked.expiry.cancel()
        del self._ids[asked.request_id]
        if not self._open and self._waited is not None:
            waited = self._stages.now() - self._since
            self._waited += waited
            self._stages.add("permission_wait", waited)
            self._owner.on_waiting(waits=False)
        word = resolution.name.lower()
        _log.info("permission.resolved", permission=permission_id, how=word, **self._stages.ids)
        return PermissionResolved(
            permission_id, resolution, parent_tool_use_id=asked.parent_tool_use_id
        )
