"""The tenants' bounds that are in force. Knows nothing of where they come from."""

from collections.abc import Mapping

from samovard.core.pool.queue import TenantLimits
from samovard.core.sessions.quotas import Quota
from samovard.settings import Tenant


class TenantBounds:
    """`[tenants.NAME]` of the settings, replaced as a whole while the service runs."""

    def __init__(self, tenants: Mapping[str, Tenant]) -> None:
        self._tenants = tenants

    def of(self, name: str) -> Tenant:
        """Return the bounds of a tenant: its own, or those of `default`."""
        return self._tenants.get(name) or self._tenants.get("default") or Tenant()

    def limits(self, name: str) -> TenantLimits:
        """Return what the pool grants a tenant."""
        bounds = self.of(name)
        return TenantLimits(bounds.queue_limit, bounds.weight, bounds.max_processes)

    def quota(self, name: str) -> Quota:
        """Return how many turns a tenant may begin, and at what cost."""
        bounds = self.of(name)
        return Quota(bounds.turns_per_minute, bounds.cost_per_day_usd)

    def take(self, tenants: Mapping[str, Tenant]) -> None:
        """Replace the bounds that are in force."""
        self._tenants = tenants
