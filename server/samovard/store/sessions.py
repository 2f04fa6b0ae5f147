"""Store sessions and turns: the core's `Records` over the database.

Knows the two tables. Every call is one transaction.
"""

from collections import Counter
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Select, and_, bindparam, delete, or_, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert as upsert

from samovard.core.errors import Internal
from samovard.core.records import SessionKey, SessionRecord, TurnRecord
from samovard.store import rows
from samovard.store.rows import BadRow
from samovard.store.sqlite.database import Database
from samovard.store.sqlite.prepared import Cursor
from samovard.store.tables import RECORDED
from samovard.store.tables import session as sessions
from samovard.store.tables import turn as turns
from samovard.store.usage import UsageStore


class SessionStore:
    """Sessions and turns in the database; see the core's `Records`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._load = database.query(_LOAD)
        self._load_turn = database.query(_LOAD_TURN)
        every = [column.name for column in sessions.c]
        of_turn = [column.name for column in turns.c]
        self._save_session = database.prepared(_SAVE_SESSION, every)
        self._insert_turn = database.prepared(_INSERT_TURN, of_turn)
        self._update_session = database.prepared(_UPDATE_SESSION, every[2:])  # without its key
        self._clear_reports = database.prepared(_CLEAR_REPORTS, ["report"])
        self._end_turn = database.prepared(_END_TURN, of_turn[3:])
        self._usage = UsageStore(database)

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """Return a session; one whose row cannot be read is blocked, and can only be closed."""
        row = await self._database.read(
            lambda c: next(self._load.run(c, **_named(key)), None), "load"
        )
        if row is None:
            return None
        try:
            return rows.session(row)
        except BadRow:
            self._database.bad_row("session", *key)
            return rows.blocked(key, row)

    async def load_turn(self, key: SessionKey, turn_id: str) -> TurnRecord | None:
        """Return a turn; raise `Internal` (bad-row) if its row cannot be read."""
        named = _named(key) | {"named_turn": turn_id}
        row = await self._database.read(
            lambda c: next(self._load_turn.run(c, **named), None), "load_turn"
        )
        try:
            return rows.turn(row) if row is not None else None
        except BadRow:
            self._database.bad_row("turn", *key, turn_id)
            raise Internal("the turn's record cannot be read", cause="bad-row") from None

    async def begin_turn(self, session: SessionRecord, turn: TurnRecord) -> TurnRecord | None:
        """Store a turn that is about to begin, and its session as it then is.

        Return the existing turn of that id instead, if there is one.
        """

        def work(cursor: Cursor) -> None:
            self._save_session.run(cursor, _key(session.key) | _session_values(session))
            values = _key(session.key) | {"turn_id": turn.turn_id} | _turn_values(turn)
            if not self._insert_turn.run(cursor, values):
                raise _Taken

        try:
            await self._database.change(work, "record")
        except _Taken:
            return await self.load_turn(session.key, turn.turn_id)
        return None

    async def withdraw(self, key: SessionKey, turn_id: str, session: SessionRecord | None) -> None:
        """Undo `begin_turn`."""

        def work(connection: Connection) -> None:
            if session is None:
                connection.execute(delete(sessions).where(_is(sessions, key)))
            else:
                _update(connection, session)
                is_turn = and_(_is(turns, key), turns.c.turn_id == turn_id)
                connection.execute(delete(turns).where(is_turn))

        await self._database.run(work, "withdraw")

    def commit(self, session: SessionRecord, turn: TurnRecord) -> Coroutine[Any, Any, None]:
        """Store how a turn ended; only the latest turn of a session keeps its report."""

        def work(cursor: Cursor) -> None:
            named = _named(session.key)
            self._update_session.run(cursor, named | _session_values(session))
            values = named | {"named_turn": turn.turn_id} | _turn_values(turn)
            # A write that is made again finds the turn ended, and must not count it twice.
            if self._end_turn.run(cursor, values):
                self._clear_reports.run(cursor, values | {"report": None})
                self._usage.count(cursor, session, turn)

        return self._database.change(work, "commit")

    async def save(self, session: SessionRecord) -> None:
        """Store a session that exists; one that was deleted meanwhile stays deleted."""
        await self._database.run(lambda c: _update(c, session), "save")

    async def list(
        self,
        tenant: str,
        before: tuple[float, str] | None,
        limit: int,
        only: Collection[str] | None = None,
        but: Collection[str] = (),
    ) -> list[SessionRecord]:
        """Return a tenant's sessions, latest first, those of equal times by name; see `Records`."""
        query = page(tenant, before, only, but)
        found = await self._database.read(lambda c: self._good(c, query, limit), "list")
        for key in found.bad:
            self._database.bad_row("session", *key)
        return found.good

    def _good(self, cursor: Cursor, query: Select[Any], limit: int) -> "_Found":
        found = _Found([], [])
        for row in self._database.query(query).run(cursor):
            try:
                found.good.append(rows.session(row))
            except BadRow:
                found.bad.append((str(row["tenant"]), str(row["session"])))
            if len(found.good) == limit:
                break
        return found

    async def expired(
        self, now: float, limit: int, after: SessionKey | None = None
    ) -> Sequence[SessionKey]:
        """Return expired sessions of any tenant, by key, after the one given."""
        names = select(sessions.c.tenant, sessions.c.session)
        query = names.where(sessions.c.expire_time <= now)
        if after is not None:
            query = query.where(tuple_(sessions.c.tenant, sessions.c.session) > after)
        found = self._database.query(
            query.order_by(sessions.c.tenant, sessions.c.session).limit(limit)
        )
        return await self._database.read(
            lambda c: [SessionKey(**row) for row in found.run(c)], "expired"
        )

    async def count(self) -> Mapping[tuple[str, str], int]:
        """Count all sessions by tenant and profile; the profile of an unreadable row is empty."""
        query = self._database.query(select(sessions.c.tenant, sessions.c.session, sessions.c.spec))

        def work(cursor: Cursor) -> tuple[Counter[tuple[str, str]], list[tuple[str, str]]]:
            counted: Counter[tuple[str, str]] = Counter()
            bad = []
            for row in query.run(cursor):
                try:
                    counted[row["tenant"], rows.profile(row["spec"])] += 1
                except BadRow:
                    counted[row["tenant"], ""] += 1
                    bad.append((str(row["tenant"]), str(row["session"])))
            return counted, bad

        counted, bad = await self._database.read(work, "count")
        for key in bad:
            self._database.bad_row("session", *key)
        return counted

    async def delete(self, key: SessionKey) -> None:
        """Delete a session and its turns."""
        is_it = _is(sessions, key)
        await self._database.run(lambda c: c.execute(delete(sessions).where(is_it)), "delete")


def page(
    tenant: str,
    before: tuple[float, str] | None,
    only: Collection[str] | None,
    but: Collection[str],
) -> Select[Any]:
    """Return the query of a page, without a limit: an unreadable row takes up no place in it."""
    query = select(sessions).where(sessions.c.tenant == tenant)
    if only is not None:
        query = query.where(sessions.c.session.in_(only))
    if but:
        query = query.where(sessions.c.session.not_in(but))
    if before is not None:
        time, name = before
        # SQLite has no index for a sum: it then searches the names, and not through all times.
        used = sessions.c.update_time if only is None else sessions.c.update_time + 0.0
        # Both conditions: it finds the first one's place in its index, but no place for an OR.
        query = query.where(used <= time)
        query = query.where(or_(used < time, sessions.c.session > name))
    return query.order_by(sessions.c.update_time.desc(), sessions.c.session)


class _Found(NamedTuple):
    """The sessions that were asked for, and the keys of rows that cannot be read."""

    good: list[SessionRecord]
    bad: list[tuple[str, str]]


def _is(table: Any, key: SessionKey) -> Any:
    return and_(table.c.tenant == key.tenant, table.c.session == key.session)


class _Taken(Exception):
    """Raised if the session already has a turn of that id."""


def _update(connection: Connection, session: SessionRecord) -> None:
    connection.execute(_UPDATE_SESSION, _named(session.key) | _session_values(session))


def _named(key: SessionKey) -> dict[str, str]:
    return {"named_tenant": key.tenant, "named_session": key.session}


_KEY = ["tenant", "session"]
_OF_SESSION = and_(
    turns.c.tenant == bindparam("named_tenant"), turns.c.session == bindparam("named_session")
)
_IS_TURN = and_(_OF_SESSION, turns.c.turn_id == bindparam("named_turn"))
_LOAD_TURN = select(turns).where(_IS_TURN)
_LOAD = select(sessions).where(
    sessions.c.tenant == bindparam("named_tenant"),
    sessions.c.session == bindparam("named_session"),
)
_INSERT_TURN = upsert(turns).on_conflict_do_nothing()
_END_TURN = update(turns).where(_IS_TURN, turns.c.state == RECORDED)
_CLEAR_REPORTS = (
    update(turns)
    .where(_OF_SESSION, turns.c.report.is_not(None), turns.c.turn_id != bindparam("named_turn"))
    .values(report=None)
)
_UPDATE_SESSION = update(sessions).where(
    sessions.c.tenant == bindparam("named_tenant"),
    sessions.c.session == bindparam("named_session"),
)
_INSERT_SESSION = upsert(sessions)
_SAVE_SESSION = _INSERT_SESSION.on_conflict_do_update(
    index_elements=_KEY,
    set_={c.name: _INSERT_SESSION.excluded[c.name] for c in sessions.c if c.name not in _KEY},
)


def _key(key: SessionKey) -> dict[str, str]:
    return {"tenant": key.tenant, "session": key.session}


def _session_values(record: SessionRecord) -> dict[str, Any]:
    return {
        "spec": msgspec.json.encode(record.spec),
        "usage": msgspec.json.encode(record.usage),
        **{name: getattr(record, name) for name in _PLAIN},
    }


_PLAIN = (
    "home",
    "agent_session",
    "turn_count",
    "prompted",
    "finished",
    "blocked",
    "traced",
    "create_time",
    "update_time",
    "expire_time",
)


def _turn_values(turn: TurnRecord) -> dict[str, Any]:
    report = msgspec.json.encode(turn.report) if turn.report is not None else None
    return {
        "digest": turn.digest,
        "state": turn.state,
        "reason": turn.reason,
        "cause": turn.cause,
        "last_sequence": turn.last_sequence,
        "report": report,
    }
