"""Tenants as operators have named them, and the credentials that are in force.

Knows the tables. Knows nothing of how a caller authenticates.
"""

import builtins
from collections.abc import Collection
from dataclasses import dataclass

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    func,
    insert,
    literal,
    or_,
    select,
    union,
    union_all,
    update,
)

from samovard.store.sqlite.database import Database
from samovard.store.sqlite.prepared import Query
from samovard.store.tables import api_key as keys
from samovard.store.tables import deletion as deletions
from samovard.store.tables import session as sessions
from samovard.store.tables import tenant as tenants


@dataclass(frozen=True, slots=True)
class TenantRecord:
    """The record of a tenant: when it was first named, and how many valid keys it has."""

    name: str
    enabled: bool
    create_time: float | None
    note: str
    keys: int
    sessions: int


@dataclass(frozen=True, slots=True)
class InForce:
    """The valid ones among some keys, and all tenants that are disabled or being deleted."""

    keys: frozenset[str]
    disabled: frozenset[str]


class TenantStore:
    """The tenants in the database. A tenant that was never named has no row, and is enabled."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._in_force: Query | None = None

    async def put(self, name: str, now: float, *, enabled: bool, note: str | None = None) -> None:
        """Enable or disable a tenant, and replace its note if there is a new one."""
        change = {"enabled": enabled} | ({} if note is None else {"note": note})

        def merge(connection: Connection) -> None:
            known = update(tenants).where(tenants.c.tenant == name).values(**change)
            if not connection.execute(known).rowcount:
                row = {"tenant": name, "create_time": now, "note": ""} | change
                connection.execute(insert(tenants).values(**row))

        await self._database.run(merge, "tenants")

    async def list(self, now: float, name: str | None = None) -> builtins.list[TenantRecord]:
        """Return every tenant that was named or has a key or a session; with `name` that one
        only.
        """
        columns = tenants.c.tenant, keys.c.tenant, sessions.c.tenant
        known = union(*(select(column.label("name")) for column in columns)).subquery()
        key_count = select(func.count()).where(keys.c.tenant == known.c.name, _valid(literal(now)))
        session_count = select(func.count()).where(sessions.c.tenant == known.c.name)
        query = (
            select(
                known.c.name,
                func.coalesce(tenants.c.enabled, literal(1)).label("enabled"),
                tenants.c.create_time,
                func.coalesce(tenants.c.note, "").label("note"),
                key_count.scalar_subquery().label("keys"),
                session_count.scalar_subquery().label("sessions"),
            )
            .select_from(known.outerjoin(tenants, tenants.c.tenant == known.c.name))
            .order_by(known.c.name)
        )
        if name is not None:
            query = query.where(known.c.name == name)
        built = self._database.query(query)
        rows = await self._database.read(lambda c: [*built.run(c)], "tenants")
        return [TenantRecord(**row | {"enabled": bool(row["enabled"])}) for row in rows]

    async def in_force(self, key_ids: Collection[str], now: float) -> InForce:
        """Return which of these keys are valid, and every disabled tenant, with one query of the
        store.
        """
        if self._in_force is None:
            self._in_force = self._database.query(_IN_FORCE)
        query, ids = self._in_force, msgspec.json.encode(sorted(key_ids)).decode()
        rows = await self._database.read(lambda c: [*query.run(c, ids=ids, now=now)], "tenants")
        found: dict[str, set[str]] = {"key": set(), "tenant": set()}
        for row in rows:
            found[row["kind"]].add(row["name"])
        return InForce(frozenset(found["key"]), frozenset(found["tenant"]))


def _valid(now: ColumnElement[float]) -> ColumnElement[bool]:
    """Return the condition that a key may be used at a time, like `KeyRecord.valid`."""
    ends = keys.c.expire_time, keys.c.revoke_time
    return and_(*(or_(end.is_(None), end > now) for end in ends))


def _in_force_query() -> Select[tuple[str, str]]:
    asked = func.json_each(bindparam("ids")).table_valued("value")
    valid = select(literal("key").label("kind"), keys.c.id.label("name")).where(
        keys.c.id.in_(select(asked.c.value)), _valid(bindparam("now"))
    )
    disabled = select(literal("tenant"), tenants.c.tenant).where(tenants.c.enabled.is_(False))
    deleted = select(literal("tenant"), deletions.c.tenant)
    both = union_all(valid, disabled, deleted).subquery()
    return select(both.c.kind, both.c.name)


_IN_FORCE = _in_force_query()
