"""End tenants that are being deleted in a running service, and forget them.

The command removes what is stored; only the service can end what runs and what is in memory. Knows
nothing of SQL or of what is stored.
"""

import time
from dataclasses import dataclass, field

from samovard.core.pool.pool import Pool
from samovard.core.sessions.sessions import Sessions
from samovard.edge.revocation import Revocation
from samovard.store.deletions import DeletionStore


@dataclass(eq=False, slots=True)
class Deleting:
    """The tenants that are being deleted; `look` must be called periodically."""

    store: DeletionStore
    revocation: Revocation
    sessions: Sessions
    pool: Pool
    _marked: set[str] = field(default_factory=set)

    async def look(self) -> None:
        """End the turns and processes of marked tenants, and record when nothing of them runs."""
        marks = await self.store.marks()
        for tenant in self._marked - marks.keys():
            self.pool.counters.forget(tenant)
            self.pool.queue.shares.forget(tenant)
            self.sessions.quotas.forget(tenant)
        self._marked = {*marks}
        for tenant in (tenant for tenant, ended in marks.items() if not ended):
            await self.revocation.look()  # from here on the tenant's calls are refused
            if await self.sessions.let_go(tenant) and not self._runs(tenant):
                await self.store.ended(tenant, time.time())

    def _runs(self, tenant: str) -> bool:
        processes = any(process.key.tenant == tenant for process in self.pool)
        return processes or self.revocation.serves(tenant)
