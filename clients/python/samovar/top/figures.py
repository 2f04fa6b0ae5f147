"""The figures of snapshots: the order of rows, changes between snapshots, and their words.

Knows the client's values, and nothing of where they are drawn.
"""

import enum
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

from samovar.pools import PoolCounters, PoolInfo, PoolSnapshot, ProcessInfo, StageTime

WINDOW = 10.0  # seconds that the shown changes cover: within less there are mostly none

Order = Callable[[Any], Any]


class Sort(enum.StrEnum):
    """The value that rows are ordered by, the largest first."""

    WAIT = "wait"
    MEMORY = "memory"
    TURNS = "turns"
    AGE = "age"
    TENANT = "tenant"


_POOLS: dict[Sort, Order] = {
    Sort.WAIT: lambda pool: (-pool.max_wait, -pool.turns_waiting),
    Sort.MEMORY: lambda pool: -pool.resident_bytes,
    Sort.TURNS: lambda pool: -pool.counters.turns,
}
_PROCESSES: dict[Sort, Order] = {
    Sort.WAIT: lambda process: process.update_time,
    Sort.MEMORY: lambda process: -process.resident_bytes,
    Sort.TURNS: lambda process: -process.turn_count,
    Sort.AGE: lambda process: process.create_time,
}


def ordered(snapshot: PoolSnapshot, sort: Sort, *, reverse: bool = False) -> PoolSnapshot:
    """Order the rows of a snapshot; equal rows are ordered by name."""

    def by(orders: dict[Sort, Order], rows: Iterable[Any], name: Order) -> tuple[Any, ...]:
        order = orders.get(sort, name)
        return tuple(sorted(rows, key=lambda row: (order(row), name(row)), reverse=reverse))

    return replace(
        snapshot,
        pools=by(_POOLS, snapshot.pools, lambda pool: (pool.tenant_id, pool.profile)),
        processes=by(_PROCESSES, snapshot.processes, _process_name),
    )


def _process_name(process: ProcessInfo) -> tuple[str, ...]:
    return process.tenant_id, process.profile, process.session_id, process.process_id


Key = tuple[str, str]


class Change:
    """The changes between two snapshots, or since the server started: by pool and in all.

    `times` has how long turns took: of those that finished between the two, or, if none did, of all
    since the start, as `since_start` says.
    """

    def __init__(self, new: PoolSnapshot, old: PoolSnapshot | None = None) -> None:
        before = {_key(pool): pool.counters for pool in old.pools} if old is not None else {}
        self.seconds = max(new.time - (old.time if old else new.server.start_time), 1e-3)
        self.pools = {
            _key(pool): minus(pool.counters, before.get(_key(pool))) for pool in new.pools
        }
        self.all = total(self.pools.values())
        self.since_start = old is None or took(self.all.stage_times) is None
        self.times = total(pool.counters for pool in new.pools) if self.since_start else self.all

    def of(self, pool: PoolInfo) -> PoolCounters:
        """Return the changes in a pool."""
        return self.pools[_key(pool)]

    def times_of(self, pool: PoolInfo) -> tuple[PoolCounters, bool]:
        """Return the counters for a pool's times, and whether they cover all since the start."""
        now = self.of(pool)
        empty = took(now.stage_times) is None
        return (pool.counters, True) if empty else (now, False)


class Changes:
    """The last snapshots, and the changes within them."""

    def __init__(self) -> None:
        self._last: deque[PoolSnapshot] = deque()

    def take(self, snapshot: PoolSnapshot) -> Change:
        """Add the next snapshot, and return the change; that of the first one covers all before
        it.
        """
        self._last.append(snapshot)
        while len(self._last) > 2 and snapshot.time - self._last[1].time >= WINDOW:
            self._last.popleft()
        return Change(snapshot, self._last[0] if len(self._last) > 1 else None)


def _key(pool: PoolInfo) -> Key:
    return pool.tenant_id, pool.profile


def minus(new: PoolCounters, old: PoolCounters | None) -> PoolCounters:
    """Return the counts since `old`; a pool that did not exist then had none."""
    if old is None:
        return new
    before = {stage.stage: stage for stage in old.stage_times}
    stages = []
    for stage in new.stage_times:
        was = before.get(stage.stage, StageTime(stage.stage, 0, 0.0))
        stages.append(StageTime(stage.stage, stage.turns - was.turns, stage.time - was.time))
    return PoolCounters(
        **{name: getattr(new, name) - getattr(old, name) for name in _COUNTS},
        stage_times=tuple(stages),
    )


def total(counters: Iterable[PoolCounters]) -> PoolCounters:
    """Return the sum of counters."""
    every = [*counters]
    stages: dict[str, StageTime] = {}
    for stage in (stage for one in every for stage in one.stage_times):
        was = stages.get(stage.stage, StageTime(stage.stage, 0, 0.0))
        stages[stage.stage] = StageTime(stage.stage, was.turns + stage.turns, was.time + stage.time)
    return PoolCounters(
        **{name: sum(getattr(one, name) for one in every) for name in _COUNTS},
        stage_times=tuple(stages.values()),
    )


_COUNTS = [field.name for field in fields(PoolCounters) if field.name != "stage_times"]


def mean(time: float, count: int) -> float | None:
    """Return a mean, None if nothing was counted."""
    return time / count if count > 0 else None


def took(stages: Sequence[StageTime]) -> float | None:
    """Return how long a turn took on average, from its request to its result, in seconds."""
    turns = max((stage.turns for stage in stages), default=0)
    return mean(sum(stage.time for stage in stages), turns)


def span(seconds: float | None) -> str:
    """Return a duration in a few characters; a dash for None."""
    if seconds is None:
        return "-"
    for limit, size, unit in _UNITS:
        if seconds < limit:
            amount = seconds / size
            return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


_UNITS = (
    (0.9995, 1e-3, "ms"),
    (99.5, 1.0, "s"),
    (99.5 * 60, 60.0, "min"),
    (48 * 3600.0, 3600.0, "h"),
)


def size(count: int) -> str:
    """Return a number of bytes in a few characters."""
    amount, units = float(count), iter("BKMGTP")
    unit = next(units)
    while amount >= 999.5:
        amount, unit = amount / 1024, next(units)
    return f"{amount:.1f} {unit}" if 0 < amount < 9.95 and unit != "B" else f"{amount:.0f} {unit}"
