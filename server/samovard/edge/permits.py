"""Permits to receive a message: a few for each tenant, and a few in all.

Knows neither gRPC nor messages.
"""

import asyncio
from collections import Counter
from types import TracebackType

EACH = 4
TOTAL = 16


class Permits:
    """A bound on messages received at once.

    Waiters are served in order, subject to their tenant's bound.
    """

    def __init__(self, each: int = EACH, total: int = TOTAL) -> None:
        self._each = each
        self._total = total
        self._held: Counter[str] = Counter()
        self._waiting: list[tuple[str, asyncio.Future[None]]] = []

    def __repr__(self) -> str:
        return f"<Permits {self._held.total()} of {self._total} waiting={len(self._waiting)}>"

    def one(self, tenant: str, patience: float) -> "Permit":
        """Return a context manager that holds a permit of a tenant.

        Entering raises `TimeoutError` if none is free within `patience` seconds.
        """
        return Permit(self, tenant, patience)

    async def take(self, tenant: str, patience: float) -> None:
        """Take a permit of a tenant. Raise `TimeoutError` as `one` does."""
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
            else:  # granted at the moment at which the waiter left
                self.give_back(tenant)
            raise

    def _may(self, tenant: str) -> bool:
        return self._held.total() < self._total and self._held[tenant] < self._each

    def give_back(self, tenant: str) -> None:
        """Give a permit of the tenant to the next waiter."""
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        for place in self._waiting:
            if not place[1].done() and self._may(place[0]):
                self._waiting.remove(place)
                self._held[place[0]] += 1
                place[1].set_result(None)
                return


class Permit:
    """A permit of a tenant, held while it is entered. A generator would cost each call more."""

    __slots__ = ("_patience", "_permits", "_tenant")

    def __init__(self, permits: Permits, tenant: str, patience: float) -> None:
        self._permits = permits
        self._tenant = tenant
        self._patience = patience

    async def __aenter__(self) -> None:
        await self._permits.take(self._tenant, self._patience)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._permits.give_back(self._tenant)
