"""The credentials of tenants, as the broker asks for them.

Knows the provider. Knows nothing of HTTP.
"""

import asyncio
from dataclasses import dataclass, field

from samovard.agent.credentials import Credential, Provider
from samovard.core.errors import SamovarError

ASK_AGAIN = 60.0  # seconds until the provider is asked again for what replaces a refused version


@dataclass(frozen=True, slots=True)
class _Renewal:
    refused: str
    time: float
    version: asyncio.Task[str]


@dataclass(slots=True)
class Keys:
    """The provider, asked for each request, so that a renewed credential is used by the next one.

    Used on one loop only.
    """

    provider: Provider
    _renewals: dict[str, _Renewal] = field(default_factory=dict)

    async def of(self, tenant: str) -> Credential:
        """Return the tenant's credential. Raise `Misconfigured` (credential-missing)."""
        return await self.provider.get(tenant)

    async def renewed(self, tenant: str, refused: str) -> bool:
        """Return True if there is another credential than the version that the API refused.

        However many requests were refused with it, the provider is asked once.
        """
        now = asyncio.get_running_loop().time()
        renewal = self._renewals.get(tenant)
        if renewal is None or renewal.refused != refused or now - renewal.time > ASK_AGAIN:
            renewal = _Renewal(refused, now, asyncio.create_task(self._ask(tenant)))
            self._renewals[tenant] = renewal
        return await asyncio.shield(renewal.version) not in ("", refused)

    async def _ask(self, tenant: str) -> str:
        try:
            return (await self.provider.get(tenant, fresh=True)).version
        except SamovarError:
            return ""
