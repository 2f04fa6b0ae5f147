"""The credentials of tenants, as the broker asks for them.

Knows the provider. Knows nothing of HTTP.
"""

import asyncio
from dataclasses import dataclass, field

from samovard.agent.credentials import Credential, Provider
from samovard.core.errors import SamovarError

#: Seconds until the provider is asked again. A file is read in a thread, which costs a request
#: more than all that the broker does with it.
KEPT = 1.0
ASK_AGAIN = 60.0  # seconds until the provider is asked again for what replaces a refused version


@dataclass(frozen=True, slots=True)
class _Renewal:
    refused: str
    time: float
    version: asyncio.Task[str]


@dataclass(slots=True)
class Keys:
    """The provider, asked about each second, so that a renewed credential is used at once.

    Used on one loop only.
    """

    provider: Provider
    _kept: dict[str, tuple[float, Credential]] = field(default_factory=dict)
    _renewals: dict[str, _Renewal] = field(default_factory=dict)

    async def of(self, tenant: str) -> Credential:
        """Return the tenant's credential. Raise `Misconfigured` (credential-missing)."""
        kept = self._kept.get(tenant)
        now = asyncio.get_running_loop().time()
        if kept is not None and now - kept[0] < KEPT:
            return kept[1]
        self._kept[tenant] = now, await self.provider.get(tenant)
        return self._kept[tenant][1]

    def forget(self, tenant: str) -> None:
        """Keep nothing of a tenant."""
        self._kept.pop(tenant, None)
        self._renewals.pop(tenant, None)

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
        now = asyncio.get_running_loop().time()
        try:
            found = await self.provider.get(tenant, fresh=True)
        except SamovarError:
            return ""
        self._kept[tenant] = now, found
        return found.version
