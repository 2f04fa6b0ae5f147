"""Permits to receive a message: a few for each tenant, and a few in all.

Knows neither gRPC nor messages.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

EACH = 4
TOTAL = 16


class Permits:
    """A bound on what is received at once. Who waits is served in order, where its tenant may."""

    def __init__(self, each: int = EACH, total: int = TOTAL) -> None:
        self._each = each
        self._total = total
        self._held: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<Permits {self._held.total()} of {self._total} waiting={len(self._waiting)}>"

    @asynccontextmanager
    async def one(self, tenant: str, patience: float) -> AsyncIterator[None]:
        """Hold a permit of a tenant. Raise `TimeoutError` if none is free within `patience`."""
        await self._take(tenant, patience)
        try:
            yield
        finally:
            self._give_back(tenant)

    async def _take(self, tenant: str, patience: float) -> None:
        if self._may(tenant):
            self._held[tenant] += 1
            return
        place = (tenant, asyncio.get_running_loop().create_future())
        self._waiting.append(place)
        try:
            async with asyncio.timeout(patience):
                await place[1]
        except BaseException:
            if place in self._waiting:
                self._waiting.remove(place)
            else:  # granted in the moment in which it left
                self._give_back(tenant)
            raise

    def _may(self, tenant: str) -> bool:
        return self._held.total() < self._total and self._held[tenant] < self._each

    def _give_back(self, tenant: str) -> None:
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        for place in self._waiting:
            if not place[1].done() and self._may(place[0]):
                self._waiting.remove(place)
                self._held[place[0]] += 1
                place[1].set_result(None)
                return
