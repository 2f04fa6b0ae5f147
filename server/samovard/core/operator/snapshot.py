"""Snapshots of the pools, for RPCs and gauges, and pure functions of them.

This module does not depend on RPCs or on how memory is measured. Times are in seconds of the
pool's clock.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from samovard.core.pool.counters import PoolCounters, PoolKey
from samovard.core.pool.pool import Pool
from samovard.core.pool.states import ProcessState
from samovard.core.sessions.sessions import Sessions
from samovard.telemetry.recorder import Gauges


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """A process. `created` and `since`, when it entered its state, are times.

    `resident` is its memory in bytes. `stored` is True if its session is in the store, `leased`
    if a turn holds it.
    """

    process_id: str
    pid: int
    pool: PoolKey
    session: str
    state: ProcessState
    created: float
    since: float
    turns: int
    resident: int
    agent_version: str
    stored: bool
    leased: bool = False

    @property
    def age(self) -> tuple[float, str]:
        """The key by which processes are ordered, oldest first."""
        # It never changes, so that a client can continue a list after any process.
        return self.created, self.process_id


class Waiting(NamedTuple):
    """A turn that waits for a process, and since when."""

    pool: PoolKey
    since: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The service at the time `now`. `epoch` is the wall time at time 0, in seconds.

    `sessions` counts the sessions in memory. `bounds` returns how many processes a tenant may
    have, None for any number, `paused` whether its turns wait for an operator.

    A snapshot must be read before the next `await`: there may be thousands of counters, so it
    has the pool's own and no copies.
    """

    now: float
    epoch: float
    draining: bool
    slots: int
    processes: tuple[ProcessRow, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    counters: Mapping[PoolKey, PoolCounters] = field(default_factory=dict)
    sessions: int = 0
    bounds: Callable[[str], int | None] = lambda tenant: None
    paused: Callable[[str], bool] = lambda tenant: False

    @property
    def resident(self) -> int:
        """The memory of all processes, in bytes."""
        return sum(row.resident for row in self.processes)


@dataclass(frozen=True, slots=True)
class PoolRow:
    """A pool: its processes by state, its waiting turns, and its counters.

    `max_wait` is how long the first of these turns has waited, in seconds. `suspended` counts
    the sessions without a process. `resident` is in bytes. `most` is how many processes the
    tenant may have, 0 for any number; `paused` is True if its turns wait for an operator.
    """

    key: PoolKey
    states: Mapping[ProcessState, int]
    waiting: int
    max_wait: float
    suspended: int
    resident: int
    counters: PoolCounters
    most: int = 0
    paused: bool = False

    @property
    def processes(self) -> int:
        """The number of processes in any state."""
        return sum(self.states.values())


def take(pool: Pool, sessions: Sessions, resident: Mapping[int, int], epoch: float) -> Snapshot:
    """Return a snapshot. `resident` is bytes by pid, `epoch` is the wall time at time 0."""
    processes = (
        ProcessRow(
            process.process_id,
            process.handle.pid,
            PoolKey(process.key.tenant, process.launch.profile),
            process.key.session,
            process.state,
            process.created,
            process.since,
            process.turns,
            resident.get(process.handle.pid, 0),
            process.handle.agent_version,
            sessions.stores(process.key),
            process.lease is not None,
        )
        for process in pool
    )
    waiting = (
        Waiting(PoolKey(waiter.key.tenant, waiter.turn.facts.profile), waiter.since)
        for waiter in pool.waiters
    )
    return Snapshot(
        pool.clock(),
        epoch,
        pool.closing,
        pool.limits.slots,
        tuple(processes),
        tuple(waiting),
        pool.counters.all,
        len(sessions),
        lambda tenant: pool.limits.tenant(tenant).processes,
        lambda tenant: not pool.queue.serves(tenant),
    )


def processes_of(
    snapshot: Snapshot, tenant: str = "", after: tuple[float, str] | None = None
) -> list[ProcessRow]:
    """Return the processes of a tenant (empty: all) after the age `after`, oldest first."""
    mine = (row for row in snapshot.processes if tenant in ("", row.pool.tenant))
    return sorted((r for r in mine if after is None or r.age > after), key=lambda row: row.age)


def pools_of(
    snapshot: Snapshot, tenant: str = "", after: PoolKey | None = None, most: int | None = None
) -> list[PoolRow]:
    """Return at most `most` pools of a tenant (empty: all) after the key `after`, by key."""
    counting = _Counting(snapshot, tenant)
    keys = (key for key in counting.keys if after is None or key > after)
    # Keys are chosen before rows are made, since there may be thousands of pools.
    chosen = sorted(keys) if most is None else heapq.nsmallest(most, keys)
    return [counting.row(key) for key in chosen]


def longest_waiting(snapshot: Snapshot, tenant: str, most: int) -> list[PoolRow]:
    """Return at most `most` pools: first by the longest wait, then by the most processes."""
    counting = _Counting(snapshot, tenant)
    rows = [counting.row(key) for key in counting.busy]
    rows.sort(key=lambda row: (-row.max_wait, -row.processes, row.key))
    # Most of thousands of tenants are idle, so rows are made only for those that are returned.
    rest = heapq.nsmallest(most - len(rows), counting.keys - counting.busy)
    return rows[:most] + [counting.row(key) for key in rest]


class _Counting:
    """A snapshot grouped by pool, for one tenant (empty: all).

    `busy` is the pools with processes or waiting turns; `keys` is all pools.
    """

    def __init__(self, snapshot: Snapshot, tenant: str) -> None:
        self._snapshot = snapshot
        self._processes: dict[PoolKey, list[ProcessRow]] = defaultdict(list)
        self._waiting: dict[PoolKey, list[float]] = defaultdict(list)
        for row in processes_of(snapshot, tenant):
            self._processes[row.pool].append(row)
        for waiter in snapshot.waiting:
            if tenant in ("", waiter.pool.tenant):
                self._waiting[waiter.pool].append(waiter.since)
        self.busy = self._processes.keys() | self._waiting.keys()
        quiet = (key for key in snapshot.counters if tenant in ("", key.tenant))
        self.keys = self.busy.union(quiet)

    def row(self, key: PoolKey) -> PoolRow:
        """Return the row of one pool."""
        processes, since = self._processes.get(key, ()), self._waiting.get(key, ())
        counters = self._snapshot.counters.get(key) or PoolCounters()
        now = self._snapshot.now
        # Suspended sessions come from the counters, so that no call has to query the store.
        return PoolRow(
            key,
            Counter(row.state for row in processes),
            len(since),
            now - min(since, default=now),
            counters.sessions - sum(row.stored for row in processes),
            sum(row.resident for row in processes),
            counters.copy(),
            self._snapshot.bounds(key.tenant) or 0,
            self._snapshot.paused(key.tenant),
        )


def longest_in_state(rows: Iterable[ProcessRow]) -> list[ProcessRow]:
    """Return the processes ordered by time in their state, longest first."""
    return sorted(rows, key=lambda row: (row.since, row.process_id))


def gauges_of(
    snapshot: Snapshot,
    profiles: Iterable[str],
    removing: int,
    certificate: float | None,
    *,
    audit_down: bool,
) -> Gauges:
    """Return the values of the gauges. Missing values are 0, so that they are exported.

    `profiles` is the names of all profiles. The other arguments are values that a snapshot does
    not have; see `Gauges`.
    """
    none = dict.fromkeys(profiles, 0)
    running, waiting = Counter(none), Counter(none)
    states = Counter({state.value: 0 for state in ProcessState})
    memory = Counter(states)
    for row in snapshot.processes:
        states[row.state.value] += 1
        memory[row.state.value] += row.resident
        running[row.pool.profile] += row.leased
    for waiter in snapshot.waiting:
        waiting[waiter.pool.profile] += 1
    now = snapshot.now
    max_wait = max((now - waiter.since for waiter in snapshot.waiting), default=0.0)
    warm, busy = states[ProcessState.IDLE.value], running.total()
    suspended = max(snapshot.sessions - warm - busy, 0)
    sessions = {"running": busy, "warm": warm, "suspended": suspended}
    return Gauges(
        running, waiting, max_wait, states, memory, sessions, removing, certificate, audit_down
    )
