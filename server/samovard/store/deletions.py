"""Tenants that are being deleted, as shared by a running service and the command.

A row exists from before the first removal until the last one. Knows the table.
"""

from collections.abc import Mapping

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from samovard.store.sqlite.database import Database
from samovard.store.tables import api_key as keys
from samovard.store.tables import deletion as deletions


class DeletionStore:
    """The deletions in the database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._marks = database.query(select(deletions.c.tenant, deletions.c.quiet_time))

    async def begin(self, tenant: str, now: float) -> int:
        """Mark a tenant, so that its calls are refused from now on, and delete its keys.

        Return how many keys there were. Idempotent.
        """

        def work(connection: Connection) -> int:
            mark = insert(deletions).values(tenant=tenant, begin_time=now)
            connection.execute(mark.on_conflict_do_nothing())
            return connection.execute(delete(keys).where(keys.c.tenant == tenant)).rowcount

        return await self._database.run(work, "tenants")

    async def marks(self) -> Mapping[str, bool]:
        """Return each tenant that is being deleted, with True if a service has ended its work."""
        found = await self._database.read(lambda c: [*self._marks.run(c)], "tenants")
        return {row["tenant"]: row["quiet_time"] is not None for row in found}

    async def ended(self, tenant: str, now: float) -> None:
        """Record that this service runs nothing of a tenant, and refuses its calls."""
        query = update(deletions).where(deletions.c.tenant == tenant).values(quiet_time=now)
        await self._database.run(lambda c: c.execute(query), "tenants")

    async def restarted(self) -> None:
        """Forget what an earlier service has recorded: it says nothing about this one."""
        query = update(deletions).values(quiet_time=None)
        await self._database.run(lambda c: c.execute(query), "tenants")
