"""The counts of a pool, compared with the facts."""

from dataclasses import fields

from support.memory_store import Shelf
from support.world import World

from samovard.core.operator.snapshot import pools_of, take
from samovard.core.pool.counters import PoolCounters, PoolKey

Counts = dict[tuple[PoolKey, str], float]


def counts_of(w: World) -> Counts:
    """Return everything that is counted and never decreases."""
    names = [f.name for f in fields(PoolCounters) if f.name not in ("sessions", "stages")]
    return {
        (key, name): getattr(tally, name)
        for key, tally in w.pool.counters.all.items()
        for name in names
    }


def count_stored(w: World, shelf: Shelf) -> None:
    """Count the sessions that a store had before the server, as the service does."""
    for key, record in shelf.sessions.items():
        w.pool.counters.of(key.tenant, record.spec.profile).sessions += 1


def check_sessions(w: World, shelf: Shelf) -> None:
    """Check the counts of sessions, and of those without a process, against the store."""
    counters = w.pool.counters.all.values()
    assert sum(tally.sessions for tally in counters) == len(shelf.sessions)
    rows = pools_of(take(w.pool, w.sessions, {}, 0.0))
    served = {process.key for process in w.pool}
    assert sum(row.suspended for row in rows) == len(shelf.sessions.keys() - served)
