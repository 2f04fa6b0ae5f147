"""The lines of the audit log: one class each, whose fields docs/audit.md explains.

None has a field for what a caller sends, what an agent answers, or any secret.
"""

from datetime import UTC, datetime

import msgspec

MAX_TEXT = 256  # characters that are kept of a name from an issuer or a certificate


class Line(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """The fields that all lines have: the time, in UTC."""

    time: datetime

    def encoded(self) -> bytes:
        """Return the line as it is written."""
        return msgspec.json.encode(self) + b"\n"


class Decision(Line, tag="decision", frozen=True, kw_only=True):
    """A call was allowed or denied."""

    call: str
    trace_id: str
    method: str
    tenant: str
    subject: str
    identity: str
    credential: str
    peer: str
    session: str
    turn: str
    target: str
    decision: str
    reason: str
    cause: str


class End(Line, tag="end", frozen=True, kw_only=True):
    """The end of an allowed turn, or of an allowed call without a turn that failed."""

    call: str
    method: str
    tenant: str
    session: str
    turn: str
    outcome: str = ""
    reason: str = ""
    cause: str = ""
    prompt_written: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    estimated: bool = False


class Refused(Line, tag="refused", frozen=True, kw_only=True):
    """A number of calls by unknown callers that were denied since a time."""

    since: datetime
    count: int
    reasons: dict[str, int]
    methods: dict[str, int]


class Resumed(Line, tag="resumed", frozen=True, kw_only=True):
    """The end of an outage of the log; so many calls were refused because of it."""

    refused: int


class Started(Line, tag="started", frozen=True, kw_only=True):
    """The start of the service."""

    server_id: str
    version: str


class Stopped(Line, tag="stopped", frozen=True, kw_only=True):
    """The orderly end of the service."""

    server_id: str


class Connection(Line, tag="connection", frozen=True, kw_only=True):
    """A connection of an agent's tool to a host, allowed or refused, once it is over.

    A line with `untold` is of so many that have no line of their own.
    """

    tenant: str
    profile: str = ""
    session: str
    host: str = ""
    port: int = 0
    sent: int = 0
    received: int = 0
    verdict: str = ""
    untold: int = 0


class Act(Line, tag="act", frozen=True, kw_only=True):
    """A change or deletion by an administrator, outside the service."""

    act: str
    user: str
    tenant: str = ""
    credential: str = ""
    scopes: list[str] = []
    count: int = 0


LINES: tuple[type[Line], ...] = (Decision, End, Refused, Resumed, Started, Stopped, Connection, Act)


def act(seconds: float, act: str, user: str, **fields: str | int | list[str]) -> bytes:
    """Return the line of an act, with the given fields that apply to it."""
    made = Act(time=at(seconds), act=act, user=user, **fields)  # type: ignore[arg-type]  # by name
    return made.encoded()


def at(seconds: float) -> datetime:
    """Return a wall time as lines have it."""
    return datetime.fromtimestamp(seconds, UTC)
