"""API keys as they are stored: never the secret, only its MAC.

Knows the table. Knows nothing of how a key is shown or checked.
"""

import builtins
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, func, insert, or_, select, update

from samovard.store.rows import BadRow, Row, Time, checked
from samovard.store.sqlite.database import Database
from samovard.store.tables import api_key as keys


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key. Times are seconds since the epoch; None for never."""

    id: str
    tenant: str
    scopes: frozenset[str]
    mac: bytes
    create_time: float
    expire_time: float | None = None
    revoke_time: float | None = None

    def valid(self, now: float) -> bool:
        """True if the key may be used now."""
        ends = [t for t in (self.expire_time, self.revoke_time) if t is not None]
        return all(now < end for end in ends)


class KeyStore:
    """The keys in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, key: KeyRecord) -> None:
        """Store a new key."""
        await self._database.run(lambda c: c.execute(insert(keys).values(**_row(key))), "keys")

    async def take(self, told: Sequence[KeyRecord]) -> None:
        """Store keys that were made elsewhere, in place of those of the same id.

        A key that was revoked here stays revoked, and one that was replaced expires no later than
        before.
        """

        def merge(connection: Connection) -> None:
            for key in told:
                row = _row(key)
                row["revoke_time"] = func.coalesce(keys.c.revoke_time, key.revoke_time)
                row["expire_time"] = _earlier(key.expire_time)
                change = update(keys).where(keys.c.id == key.id)
                if not connection.execute(change.values(**row)).rowcount:
                    connection.execute(insert(keys).values(**_row(key)))

        await self._database.run(merge, "keys")

    async def get(self, id: str) -> KeyRecord | None:
        """Return a key by its public id, or None."""
        found = await self._found(select(keys).where(keys.c.id == id))
        return found[0] if found else None

    async def list(self, tenant: str | None = None) -> list[KeyRecord]:
        """Return the keys of a tenant, or all, oldest first."""
        query = select(keys).order_by(keys.c.create_time)
        if tenant is not None:
            query = query.where(keys.c.tenant == tenant)
        return await self._found(query)

    async def _found(self, query: Select[Any]) -> "builtins.list[KeyRecord]":
        """Return the keys of a query, without rows that cannot be read."""
        statement = self._database.query(query)
        found = []
        for row in await self._database.read(lambda c: [*statement.run(c)], "keys"):
            try:
                found.append(_key(row))
            except BadRow:
                self._database.bad_row("api_key", str(row["id"]))
        return found

    async def replace(self, id: str, key: KeyRecord, expire_time: float) -> KeyRecord | None:
        """Store a key in place of another, which expires at that time unless it does so earlier.

        Return the old key as it is then; return None, and store nothing, if it is no longer valid.
        """
        old = update(keys).where(
            keys.c.id == id,
            keys.c.revoke_time.is_(None),
            or_(keys.c.expire_time.is_(None), keys.c.expire_time > key.create_time),
        )

        def rotate(connection: Connection) -> bool:
            if not connection.execute(old.values(expire_time=_earlier(expire_time))).rowcount:
                return False
            connection.execute(insert(keys).values(**_row(key)))
            return True

        return await self.get(id) if await self._database.run(rotate, "keys") else None

    async def revoke(self, tenant: str, id: str | None, now: float) -> int:
        """Revoke one key of a tenant, or all of them. Return how many there were."""
        of_tenant = update(keys).where(keys.c.tenant == tenant, keys.c.revoke_time.is_(None))
        query = of_tenant.where(keys.c.id == id) if id is not None else of_tenant
        return await self._database.run(
            lambda c: c.execute(query.values(revoke_time=now)).rowcount, "keys"
        )


def _earlier(expire_time: float | None) -> ColumnElement[float]:
    """Return the earlier of a key's own expiry and this time."""
    both = func.min(keys.c.expire_time, expire_time)  # NULL if one is
    return func.coalesce(both, keys.c.expire_time, expire_time)


def _row(key: KeyRecord) -> dict[str, Any]:
    return {
        "id": key.id,
        "tenant": key.tenant,
        "scopes": " ".join(sorted(key.scopes)),
        "mac": key.mac,
        "create_time": key.create_time,
        "expire_time": key.expire_time,
        "revoke_time": key.revoke_time,
    }


def _key(row: Row) -> KeyRecord:
    plain = msgspec.structs.asdict(checked(row, _Stored))
    return KeyRecord(**plain | {"scopes": frozenset(plain["scopes"].split())})


class _Stored(msgspec.Struct):
    """A key as its row has it."""

    id: str
    tenant: str
    scopes: str
    mac: bytes
    create_time: Time
    expire_time: Time | None
    revoke_time: Time | None
