"""Counters of each pool since the server started.

A pool is the set of one tenant's processes with one profile.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from samovard.core.errors import SamovarError, TurnWithdrawn
from samovard.core.pool.states import ProcessState
from samovard.core.process import Broken

#: Causes for stopping a process that did nothing wrong and is not needed.
RETIRED = frozenset({"idle", "evicted", "replaced", "outdated"})
#: Causes for ending a process that can no longer be trusted.
KILLED = frozenset({"unproven", "deaf", *(how.value for how in Broken)})


class PoolKey(NamedTuple):
    """The key of a pool."""

    tenant: str
    profile: str


@dataclass(slots=True)
class StageTime:
    """The number of turns that reached a stage, and their total time in it in nanoseconds."""

    turns: int = 0
    time: int = 0


@dataclass(slots=True)
class PoolCounters:
    """The counters of one pool. Durations are in seconds. Only `sessions` can decrease.

    `sessions` counts the pool's sessions in the store; `stages` covers turns that finished.
    """

    turns_warm: int = 0
    turns_cold: int = 0
    turns_resumed: int = 0
    turns_queued: int = 0
    turns_refused: int = 0
    turns_lost: int = 0
    wait_time: float = 0.0
    processes_started: int = 0
    start_time: float = 0.0
    starts_failed: int = 0
    processes_died: int = 0
    processes_retired: int = 0
    processes_killed: int = 0
    sessions: int = 0
    stages: dict[str, StageTime] = field(default_factory=dict)

    def began(self, *, first: bool, resumed: bool) -> None:
        """Count a turn whose prompt was written.

        `first` is True if it is the first turn of its process; `resumed` is True if that process
        was started from a transcript.
        """
        if not first:
            self.turns_warm += 1
        elif resumed:
            self.turns_resumed += 1
        else:
            self.turns_cold += 1

    def finished(self, stages: Mapping[str, int]) -> None:
        """Count the stages of a turn that finished; `stages` are in nanoseconds."""
        sums = self.stages
        for name, time in stages.items():
            # `setdefault` alone would create a `StageTime` for each stage of each turn.
            sum = sums.get(name) or sums.setdefault(name, StageTime())
            sum.turns += 1
            sum.time += time

    def waited(self, seconds: float, *, again: bool) -> None:
        """Count a turn that had to wait, when its wait of `seconds` is over.

        `again` is True if the turn was counted before because it waited for a process that was
        then replaced.
        """
        if not again:
            self.turns_queued += 1
        self.wait_time += seconds

    def failed(self, error: SamovarError, *, began: bool) -> None:
        """Count a turn that ended with an error. Withdrawn turns are not counted."""
        if began:
            self.turns_lost += 1
        elif not isinstance(error, TurnWithdrawn):
            self.turns_refused += 1

    def closed(self, *, counted: bool) -> None:
        """Count a session that was deleted from the store, if it was `counted` as stored."""
        # The counters are new, with no session, if the tenant was deleted in the meantime.
        if counted and self.sessions:
            self.sessions -= 1

    def copy(self) -> "PoolCounters":
        """Return a copy of the counters, which later events do not change."""
        # `replace` alone would share the dict and the sums in it.
        return replace(self, stages={name: replace(sum) for name, sum in self.stages.items()})

    def started(self, seconds: float) -> None:
        """Count a process that became ready `seconds` after its start began."""
        self.processes_started += 1
        self.start_time += seconds

    def stopped(self, source: ProcessState, cause: str) -> None:
        """Count a process that is told to stop in state `source`, by its cause."""
        if source is ProcessState.STARTING and cause == "start-failed":
            self.starts_failed += 1
        if cause in RETIRED:
            self.processes_retired += 1
        elif cause in KILLED:
            self.processes_killed += 1

    def exited(self, source: ProcessState) -> None:
        """Count a process that exited in state `source`, unless it had been told to stop."""
        # A process that is told to stop was counted then: it must not count again at its exit.
        if source is ProcessState.STARTING:
            self.starts_failed += 1
        elif source not in (ProcessState.STOPPING, ProcessState.QUARANTINED):
            self.processes_died += 1


class Counters:
    """The counters of all pools."""

    def __init__(self) -> None:
        self._counters: dict[PoolKey, PoolCounters] = {}

    @property
    def all(self) -> Mapping[PoolKey, PoolCounters]:
        """The counters by pool."""
        return self._counters

    def of(self, tenant: str, profile: str) -> PoolCounters:
        """Return the counters of a pool. Those of a new pool are zero."""
        return self._counters.setdefault(PoolKey(tenant, profile), PoolCounters())

    def forget(self, tenant: str) -> None:
        """Drop the counters of a tenant that has no running turns or processes."""
        for key in [key for key in self._counters if key.tenant == tenant]:
            del self._counters[key]
