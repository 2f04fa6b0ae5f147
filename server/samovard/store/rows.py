"""Convert rows to records, and reject those that no version of this service writes.

A row may have been changed by hand, by a fault of the disk or by a defect: it must not keep others
from being read. Knows the columns and nothing of SQL.
"""

import re
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from samovard.core.events import TurnFinished, Usage
from samovard.core.records import SessionKey, SessionRecord, Spec, TurnRecord

T = TypeVar("T")

Row = Mapping[str, Any]
#: Seconds since the epoch, as the contract's timestamps reach.
Time = Annotated[float, Meta(ge=0, le=253402300799)]
Count = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Flag = Annotated[int, Meta(ge=0, le=1)]

_HOME = re.compile("[0-9a-f]{32}")


class BadRow(Exception):
    """Raised if a row holds what no record can hold."""


class _Session(Struct):
    tenant: str
    session: str
    home: str
    agent_session: str
    turn_count: Count
    prompted: Flag
    finished: Flag
    blocked: Flag
    traced: str
    create_time: Time
    update_time: Time
    expire_time: Time


class _Turn(Struct):
    turn_id: str
    digest: bytes
    state: Literal["recorded", "finished", "lost"]
    reason: str
    cause: str
    last_sequence: Count


class _Named(Struct):
    """A session's spec, of which only the profile is read."""

    profile: str


def checked(row: Row, kind: type[T]) -> T:
    """Return the columns of a row that `kind` has. Raise `BadRow` if one has another type."""
    try:
        found = msgspec.convert(row, kind)
        "".join(value for value in row.values() if isinstance(value, str)).encode()
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRow(str(error)) from error
    return found


def decoded(data: object, kind: type[T]) -> T:
    """Return the value in a column of JSON. Raise `BadRow` if it is not valid."""
    if not isinstance(data, bytes):
        raise BadRow("expected bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadRow(str(error)) from error


def session(row: Row) -> SessionRecord:
    """Return the session in a row. Raise `BadRow`."""
    plain = msgspec.structs.asdict(checked(row, _Session))
    for flag in ("prompted", "finished", "blocked"):
        plain[flag] = bool(plain[flag])
    spec = decoded(row["spec"], Spec)
    return SessionRecord(
        key=SessionKey(plain.pop("tenant"), plain.pop("session")),
        spec=spec,
        usage=Usage() + decoded(row["usage"], Usage),
        **plain,
    )


def blocked(key: SessionKey, row: Row) -> SessionRecord:
    """Return what is known of a session whose row cannot be read; such a session can only be
    closed.
    """
    home = str(row["home"])
    return SessionRecord(
        key=key,
        spec=_or(row["spec"], Spec()),
        home=home if _HOME.fullmatch(home) else uuid.uuid4().hex,
        agent_session=str(uuid.uuid4()),
        create_time=_time(row["create_time"]),
        update_time=_time(row["update_time"]),
        expire_time=_time(row["expire_time"]),
        prompted=True,
        finished=True,
        blocked=True,
    )


def _or(data: object, default: Spec) -> Spec:
    try:
        return decoded(data, Spec)
    except BadRow:
        return default


def _time(value: object) -> float:
    try:
        return msgspec.convert(value, Time)
    except msgspec.MsgspecError:
        return 0.0


def turn(row: Row) -> TurnRecord:
    """Return the turn in a row. Raise `BadRow`."""
    plain = msgspec.structs.asdict(checked(row, _Turn))
    report = decoded(row["report"], TurnFinished) if row["report"] is not None else None
    return TurnRecord(**plain, report=report)


def profile(spec: object) -> str:
    """Return the profile of a session's spec. Raise `BadRow`."""
    return decoded(spec, _Named).profile
