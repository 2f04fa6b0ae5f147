"""What happened in each pool since the server started.

A pool is one tenant's processes with one profile. Knows nothing of who counts or why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from samovard.core.errors import SamovarError, TurnWithdrawn
from samovard.core.pool.states import ProcessState
from samovard.core.process import Broken

#: Why a process is stopped that did nothing wrong and is not missed.
RETIRED = frozenset({"idle", "evicted", "replaced", "outdated"})
#: Why one is ended that cannot be trusted any more.
KILLED = frozenset({"unproven", "deaf", *(how.value for how in Broken)})


class PoolKey(NamedTuple):
    """Names a pool."""

    tenant: str
    profile: str


@dataclass(slots=True)
class StageTime:
    """How many turns reached a stage, and the nanoseconds that they spent in it."""

    turns: int = 0
    time: int = 0


@dataclass(slots=True)
class PoolCounters:
    """What happened in one pool. Durations are in seconds; nothing but `sessions` decreases.

    `sessions` is how many sessions there are in the store; `stages` are of turns that finished.
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
        """Counts a turn whose prompt was written, to a process that served others or none."""
        if not first:
            self.turns_warm += 1
        elif resumed:
            self.turns_resumed += 1
        else:
            self.turns_cold += 1

    def finished(self, stages: Mapping[str, int]) -> None:
        """Counts the stages of a turn that finished, each in nanoseconds."""
        sums = self.stages
        for name, time in stages.items():
            sum = sums.get(name) or sums.setdefault(name, StageTime())
            sum.turns += 1
            sum.time += time

    def waited(self, seconds: float, *, again: bool) -> None:
        """Count a turn that was not served at once, once it waits no more.

        `again`: it was counted before, and waited for another process than it got.
        """
        if not again:
            self.turns_queued += 1
        self.wait_time += seconds

    def failed(self, error: SamovarError, *, began: bool) -> None:
        """Counts a turn that ended with a status; one that was withdrawn is not counted."""
        if began:
            self.turns_lost += 1
        elif not isinstance(error, TurnWithdrawn):
            self.turns_refused += 1

    def closed(self, *, counted: bool) -> None:
        """Count a session that is no longer stored, if it was; its tenant may be deleted, too."""
        if counted and self.sessions:
            self.sessions -= 1

    def copy(self) -> "PoolCounters":
        """Gives what was counted so far, which nothing changes any more."""
        return replace(self, stages={name: replace(sum) for name, sum in self.stages.items()})

    def started(self, seconds: float) -> None:
        """Counts a process that is ready, so many seconds after it was begun with."""
        self.processes_started += 1
        self.start_time += seconds

    def stopped(self, source: ProcessState, cause: str) -> None:
        """Counts a process that is told to stop, and why."""
        if source is ProcessState.STARTING and cause == "start-failed":
            self.starts_failed += 1
        if cause in RETIRED:
            self.processes_retired += 1
        elif cause in KILLED:
            self.processes_killed += 1

    def exited(self, source: ProcessState) -> None:
        """Counts a process that is gone, if nobody had told it to be."""
        if source is ProcessState.STARTING:
            self.starts_failed += 1
        elif source not in (ProcessState.STOPPING, ProcessState.QUARANTINED):
            self.processes_died += 1


class Counters:
    """The tallies of all pools."""

    def __init__(self) -> None:
        self._counters: dict[PoolKey, PoolCounters] = {}

    @property
    def all(self) -> Mapping[PoolKey, PoolCounters]:
        """The tally of each pool that there is."""
        return self._counters

    def of(self, tenant: str, profile: str) -> PoolCounters:
        """Gives the tally of a pool, which begins with nothing."""
        return self._counters.setdefault(PoolKey(tenant, profile), PoolCounters())

    def forget(self, tenant: str) -> None:
        """Drop the tallies of a tenant of which nothing runs."""
        for key in [key for key in self._counters if key.tenant == tenant]:
            del self._counters[key]
