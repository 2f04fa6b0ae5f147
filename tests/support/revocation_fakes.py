"""Credentials in memory, and turns that only record their senders."""

from collections.abc import Collection
from dataclasses import dataclass, field

from samovard.edge.revocation import Revocation
from samovard.store.tenants import InForce

NOW = 1_700_000_000.0


@dataclass
class Books:
    """Keys and tenants in memory. Every key is valid except those that were revoked."""

    revoked: set[str] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    asked: list[set[str]] = field(default_factory=list)

    async def in_force(self, key_ids: Collection[str], now: float) -> InForce:
        self.asked.append({*key_ids})
        return InForce(frozenset({*key_ids} - self.revoked), frozenset(self.disabled))


@dataclass
class Sent:
    """Turns by their senders, and the senders whose turns were stopped."""

    by: set[object] = field(default_factory=set)
    stopped: set[object] = field(default_factory=set)

    def senders(self) -> set[object]:
        return self.by - self.stopped

    def revoke(self, senders: Collection[object]) -> None:
        self.stopped |= {*senders}


def revocation(
    books: Books | None = None, sent: Sent | None = None, now: float = NOW
) -> Revocation:
    """Return a `Revocation` on these; by default nothing is revoked."""
    return Revocation(books or Books(), sent or Sent(), lambda: now)
