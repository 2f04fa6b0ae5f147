"""Records of sessions and turns, and the interface of the store that keeps them.

A session's key is always (tenant, session name). This module does not depend on SQL.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from samovard.core.events import TurnFinished, Usage

#: Where a page of a list ends: a session's `update_time`, and its name.
Cursor = tuple[float, str]


class SessionKey(NamedTuple):
    """The key of a session. A session name alone is ambiguous between tenants."""

    tenant: str
    session: str


class PermissionPolicy(enum.IntEnum):
    """What becomes of a tool that needs permission, by the contract's numbers.

    A number that this version does not know may be in the store: it is kept, named by itself.
    """

    UNSPECIFIED = 0
    DENY = 1
    ASK = 2

    @classmethod
    def _missing_(cls, value: object) -> "PermissionPolicy | None":
        if not isinstance(value, int) or not 0 <= value < 1 << 31:
            return None
        unknown = int.__new__(cls, value)
        unknown._name_, unknown._value_ = str(value), value
        return unknown


@dataclass(frozen=True, slots=True)
class Spec:
    """The spec that a session was created with. An empty value or 0 is unset."""

    profile: str = ""
    model: str = ""
    append_system_prompt: str = ""
    permission_policy: PermissionPolicy = PermissionPolicy.UNSPECIFIED
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it is stored. Times are in seconds since the epoch.

    `home` is the random name of its directory. `agent_session` is the UUID of the agent's
    transcript. `prompted` is True once any prompt was written: the next process must resume.
    `finished` is True once a transcript was seen: from then on a missing transcript is lost.
    `blocked` is True if the session accepts no more turns. `traced` is the trace position of
    the last turn's agent, empty if the turn was not traced.
    """

    key: SessionKey
    spec: Spec
    home: str
    agent_session: str
    create_time: float
    update_time: float
    expire_time: float
    turn_count: int = 0
    usage: Usage = field(default_factory=Usage)
    prompted: bool = False
    finished: bool = False
    blocked: bool = False
    traced: str = ""


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A turn as it is stored.

    `state` is `recorded`, `finished` or `lost`. `digest` is the digest of the content.
    `reason` and `cause` are set for a turn that ended with a status. `report` is the
    `turn_finished` event, kept for the session's latest turn only. `estimate` is what a lost turn
    is thought to have used; it is counted for its day and not stored with the turn.
    """

    turn_id: str
    digest: bytes
    state: str = "recorded"
    reason: str = ""
    cause: str = ""
    last_sequence: int = 0
    report: TurnFinished | None = None
    estimate: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class DailyUsage:
    """What a tenant's turns used on one day in UTC, as `2026-11-30`, with one model.

    `lost_turns` is the number of turns whose end is not known, `lost_usage` an estimate of what
    they used.
    """

    tenant: str
    day: str
    model: str
    turns: int
    usage: Usage
    lost_turns: int
    lost_usage: Usage


@dataclass(frozen=True, slots=True)
class Days:
    """A range of days in UTC, both ends included, as `2026-11-30`."""

    first: str
    last: str


class UsageRecords(Protocol):
    """What was used, by tenant, day and model.

    The method raises `NoProcess` (store-down) if the store cannot be reached.
    """

    async def list(
        self, tenant: str, days: Days, limit: int | None, after: tuple[str, str, str] | None
    ) -> Sequence[DailyUsage]:
        """Return what a tenant used, or all if it is empty, after a tenant, day and model.

        Return at most `limit` entries, all if it is None, in the order of these three.
        """


class Records(Protocol):
    """A store of sessions and turns. Every call is one transaction.

    Every method raises `NoProcess` (store-down) if the store cannot be reached.
    """

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """Return a session, or None if it is not stored."""

    async def load_turn(self, key: SessionKey, turn_id: str) -> TurnRecord | None:
        """Return a turn, or None if it is not stored."""

    async def begin_turn(self, session: SessionRecord, turn: TurnRecord) -> TurnRecord | None:
        """Store a turn that is about to begin, together with its updated session.

        If the session already has a turn with that id, return the stored turn and change
        nothing. Return None otherwise.
        """

    async def withdraw(self, key: SessionKey, turn_id: str, session: SessionRecord | None) -> None:
        """Undo `begin_turn`: restore the given session, or delete the session if it is None."""

    async def commit(self, session: SessionRecord, turn: TurnRecord) -> None:
        """Store the outcome of a turn, together with its updated session."""

    async def save(self, session: SessionRecord) -> None:
        """Update a session that is already stored."""

    async def list(
        self,
        tenant: str,
        # A cursor and not an offset, because sessions move to the front while a client pages.
        before: tuple[float, str] | None,
        limit: int,
        only: Collection[str] | None = None,
        but: Collection[str] = (),
    ) -> list[SessionRecord]:
        """Return a tenant's sessions after a cursor of (update_time, name), latest first.

        Return at most `limit` sessions. `only` restricts them to these names unless it is
        None; `but` excludes names.
        """

    async def expired(
        self, now: float, limit: int, after: SessionKey | None = None
    ) -> Sequence[SessionKey]:
        """Return at most `limit` keys of sessions of any tenant that have expired at `now`.

        The keys are in ascending order and come after the given one.
        """

    async def delete(self, key: SessionKey) -> None:
        """Delete a session and its turns. Idempotent."""
