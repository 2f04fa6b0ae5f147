"""The operator's view, as plain typed values.

Knows the contract. Names are the contract's; times are seconds since the epoch, durations seconds,
sizes bytes.
"""

from dataclasses import dataclass, fields
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from samovar.events import seconds
from samovar.v1 import pool_pb2 as pb

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class StageTime:
    """The time that finished turns spent in one stage, summed."""

    stage: str
    turns: int
    time: float


@dataclass(frozen=True, slots=True)
class PoolCounters:
    """Counts of events in a pool since the server started. They never decrease."""

    turns_warm: int
    turns_spare: int
    turns_cold: int
    turns_resumed: int
    turns_queued: int
    turns_refused: int
    turns_lost: int
    wait_time: float
    processes_started: int
    start_time: float
    starts_failed: int
    processes_died: int
    processes_retired: int
    processes_killed: int
    stage_times: tuple[StageTime, ...]

    @property
    def turns(self) -> int:
        """Turns that began."""
        return self.turns_warm + self.turns_spare + self.turns_cold + self.turns_resumed


@dataclass(frozen=True, slots=True)
class PoolInfo:
    """The processes that serve one tenant with one profile."""

    tenant_id: str
    profile: str
    min_spares: int
    max_processes: int
    processes_starting: int
    processes_spare: int
    processes_idle: int
    processes_leased: int
    processes_settling: int
    processes_stopping: int
    processes_quarantined: int
    turns_waiting: int
    max_wait: float
    sessions_suspended: int
    resident_bytes: int
    counters: PoolCounters
    paused: bool = False


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process; `state` is the contract's, in lower case and without its prefix."""

    process_id: str
    pid: int
    tenant_id: str
    profile: str
    session_id: str
    state: str
    create_time: float
    update_time: float
    turn_count: int
    resident_bytes: int
    agent_version: str


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """The server that answers."""

    server_id: str
    server_version: str
    agent_version: str
    isolation: str
    start_time: float
    draining: bool
    processes: int
    max_processes: int
    resident_bytes: int
    max_resident_bytes: int
    network: str = ""


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The server, pools and processes at one moment."""

    time: float
    server: ServerInfo
    pools: tuple[PoolInfo, ...]
    processes: tuple[ProcessInfo, ...]


@dataclass(frozen=True, slots=True)
class Drained:
    """How many processes were told to stop, and how many will be when their turn ends."""

    stopped: int
    marked: int


def pool(message: pb.PoolInfo) -> PoolInfo:
    """Return the pool in a message."""
    stages = tuple(_value(StageTime, stage) for stage in message.counters.stage_times)
    return _value(
        PoolInfo, message, counters=_value(PoolCounters, message.counters, stage_times=stages)
    )


def process(message: pb.ProcessInfo) -> ProcessInfo:
    """Return the process in a message; a state of a later server is a number."""
    known = message.state in pb.ProcessInfo.State.values()
    name = pb.ProcessInfo.State.Name(message.state) if known else str(message.state)
    return _value(ProcessInfo, message, state=name.removeprefix("STATE_").lower())


def snapshot(message: pb.WatchPoolsResponse) -> PoolSnapshot:
    """Return the snapshot in a message."""
    return PoolSnapshot(
        seconds(message.time),
        _value(ServerInfo, message.server),
        tuple(map(pool, message.pools)),
        tuple(map(process, message.processes)),
    )


def _value(kind: type[Value], message: Any, **made: Any) -> Value:
    """Return the value in a message whose fields have the same names."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]  # a dataclass
    rest = {name: _plain(getattr(message, name)) for name in names if name not in made}
    return kind(**made, **rest)


def _plain(value: Any) -> Any:
    if isinstance(value, Timestamp):
        return seconds(value)
    return value.ToTimedelta().total_seconds() if isinstance(value, Duration) else value
