"""Convert an operator's view to protobuf.

Knows the contract, and decides nothing: what is counted was decided before.
"""

from google.protobuf import duration_pb2

from samovar.v1 import pool_pb2 as pb
from samovard.core.operator import snapshot as snapshots
from samovard.core.operator.overview import ServerInfo
from samovard.core.operator.snapshot import PoolRow, ProcessRow, Snapshot
from samovard.core.pool.counters import PoolCounters, StageTime
from samovard.core.pool.states import ProcessState
from samovard.core.records import DailyUsage
from samovard.edge.wire import daily_usage, timestamp
from samovard.telemetry.stages import MARKS

#: The contract's names of our states. An exited process may have left a process tree behind.
STATES = {
    ProcessState.STARTING: pb.ProcessInfo.STATE_STARTING,
    ProcessState.IDLE: pb.ProcessInfo.STATE_IDLE,
    ProcessState.LEASED: pb.ProcessInfo.STATE_LEASED,
    ProcessState.RUNNING: pb.ProcessInfo.STATE_LEASED,
    ProcessState.INTERRUPTING: pb.ProcessInfo.STATE_SETTLING,
    ProcessState.SETTLING: pb.ProcessInfo.STATE_SETTLING,
    ProcessState.STOPPING: pb.ProcessInfo.STATE_STOPPING,
    ProcessState.EXITED: pb.ProcessInfo.STATE_STOPPING,
    ProcessState.QUARANTINED: pb.ProcessInfo.STATE_QUARANTINED,
}


def snapshot(server: ServerInfo, taken: Snapshot, tenant: str, most: int) -> pb.WatchPoolsResponse:
    """Convert a snapshot: the first rows of each kind, at most `most`."""
    processes = snapshots.longest_in_state(snapshots.processes_of(taken, tenant))
    return pb.WatchPoolsResponse(
        time=timestamp(taken.epoch + taken.now),
        server=_server(server, taken),
        pools=map(pool, snapshots.longest_waiting(taken, tenant, most)),
        processes=[process(row, taken) for row in processes[:most]],
    )


def _server(server: ServerInfo, taken: Snapshot) -> pb.ServerInfo:
    return pb.ServerInfo(
        server_id=server.server_id,
        server_version=server.version,
        agent_version=server.agent_version(),
        isolation=server.isolation,
        network=server.network,
        start_time=timestamp(server.start_time),
        draining=taken.draining,
        processes=len(taken.processes),
        max_processes=taken.slots,
        resident_bytes=taken.resident,
    )


def pool(row: PoolRow) -> pb.PoolInfo:
    """Convert a pool."""
    counts = dict.fromkeys(STATES.values(), 0)
    for state, count in row.states.items():
        counts[STATES[state]] += count
    return pb.PoolInfo(
        tenant_id=row.key.tenant,
        profile=row.key.profile,
        max_processes=row.most,
        paused=row.paused,
        processes_starting=counts[pb.ProcessInfo.STATE_STARTING],
        processes_idle=counts[pb.ProcessInfo.STATE_IDLE],
        processes_leased=counts[pb.ProcessInfo.STATE_LEASED],
        processes_settling=counts[pb.ProcessInfo.STATE_SETTLING],
        processes_stopping=counts[pb.ProcessInfo.STATE_STOPPING],
        processes_quarantined=counts[pb.ProcessInfo.STATE_QUARANTINED],
        turns_waiting=row.waiting,
        max_wait=duration(row.max_wait),
        sessions_suspended=row.suspended,
        resident_bytes=row.resident,
        counters=_counters(row.counters),
    )


def _counters(counters: PoolCounters) -> pb.PoolCounters:
    return pb.PoolCounters(
        turns_warm=counters.turns_warm,
        turns_cold=counters.turns_cold,
        turns_resumed=counters.turns_resumed,
        turns_queued=counters.turns_queued,
        turns_refused=counters.turns_refused,
        turns_lost=counters.turns_lost,
        wait_time=duration(counters.wait_time),
        processes_started=counters.processes_started,
        start_time=duration(counters.start_time),
        starts_failed=counters.starts_failed,
        processes_died=counters.processes_died,
        processes_retired=counters.processes_retired,
        processes_killed=counters.processes_killed,
        stage_times=[
            _stage(name, counters.stages[name]) for name in MARKS if name in counters.stages
        ],
    )


def _stage(name: str, sum: StageTime) -> pb.StageTime:
    return pb.StageTime(stage=name, turns=sum.turns, time=duration(sum.time / 1e9))


def process(row: ProcessRow, taken: Snapshot) -> pb.ProcessInfo:
    """Convert a process of a snapshot."""
    return pb.ProcessInfo(
        process_id=row.process_id,
        pid=row.pid,
        tenant_id=row.pool.tenant,
        profile=row.pool.profile,
        session_id=row.session,
        state=STATES[row.state],
        create_time=timestamp(taken.epoch + row.created),
        update_time=timestamp(taken.epoch + row.since),
        turn_count=row.turns,
        resident_bytes=row.resident,
        agent_version=row.agent_version,
    )


def duration(seconds: float) -> duration_pb2.Duration:
    """Convert a duration in seconds."""
    written = duration_pb2.Duration()
    written.FromMicroseconds(round(1e6 * seconds))
    return written


def tenant_usage(used: DailyUsage) -> pb.TenantUsage:
    """Convert what a tenant used on a day with a model."""
    return pb.TenantUsage(tenant_id=used.tenant, usage=daily_usage(used))
