"""What the core needs of a store: records of sessions and turns, and the seam to them.

Knows nothing of SQL. A session's key is (tenant, session name), everywhere.
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from samovard.core.events import TurnFinished, Usage


class SessionKey(NamedTuple):
    """Names a session: a name alone never does."""

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
    """What a session was asked to be, as first given: None or empty is unset."""

    profile: str = ""
    model: str = ""
    append_system_prompt: str = ""
    permission_policy: PermissionPolicy = PermissionPolicy.UNSPECIFIED
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it is stored. Times are seconds since the epoch.

    `home` is the random name of its directory; `agent_session` the UUID of the agent's
    transcript; `prompted` whether any prompt was ever written, so that the next
    process must resume; `finished` whether a transcript was ever seen, so that one that
    is missing is lost; `traced` where the last
    turn's agent stands in its trace, empty if nobody recorded it.
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

    `state` is `recorded`, `finished` or `lost`; `digest` is of the content; `end` is
    the reason and cause of a turn that ended with a status; `report` the
    `turn_finished` event, kept for the session's latest turn only.
    """

    turn_id: str
    digest: bytes
    state: str = "recorded"
    reason: str = ""
    cause: str = ""
    last_sequence: int = 0
    report: TurnFinished | None = None


class Records(Protocol):
    """Keeps sessions and turns. Every call is one transaction.

    Raises `NoProcess` (store-down) if the store cannot be reached.
    """

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """Gets a session."""

    async def load_turn(self, key: SessionKey, turn_id: str) -> TurnRecord | None:
        """Gets a turn."""

    async def begin_turn(self, session: SessionRecord, turn: TurnRecord) -> TurnRecord | None:
        """Stores a turn that is about to begin, and its session as it then is.

        If the session has a turn of that id already, gives that and changes nothing.
        """

    async def withdraw(self, key: SessionKey, turn_id: str, session: SessionRecord | None) -> None:
        """Undoes `begin_turn`: the session is as given, or was never there."""

    async def commit(self, session: SessionRecord, turn: TurnRecord) -> None:
        """Stores how a turn ended, and its session as it then is."""

    async def save(self, session: SessionRecord) -> None:
        """Stores a session that exists."""

    async def list(
        self,
        tenant: str,
        before: tuple[float, str] | None,
        limit: int,
        only: Collection[str] | None = None,
        but: Collection[str] = (),
    ) -> list[SessionRecord]:
        """Return a tenant's sessions behind a cursor of (update_time, name), latest first.

        `only` and `but` are the names of those that may, and may not, be among them.
        """

    async def expired(
        self, now: float, limit: int, after: SessionKey | None = None
    ) -> Sequence[SessionKey]:
        """Return sessions of any tenant whose time is over, by key, behind the one given."""

    async def delete(self, key: SessionKey) -> None:
        """Forgets a session and its turns. Idempotent."""
