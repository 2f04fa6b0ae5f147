"""Writes what an operator sees as protobuf.

Knows the contract. Decides nothing: what is counted was decided before.
"""

from google.protobuf import duration_pb2

from samovar.v1 import pool_pb2 as pb
from samovard.core.operator import snapshot as snapshots
from samovard.core.operator.overview import Server
from samovard.core.operator.snapshot import PoolRow, ProcessRow, Snapshot
from samovard.core.pool.counters import StageSum, Tally
from samovard.core.pool.states import State
from samovard.edge.wire import timestamp
from samovard.telemetry.stages import MARKS

#: The contract's names of our states. What has exited may have left a tree behind.
STATES = {
    State.STARTING: pb.ProcessInfo.STATE_STARTING,
    State.IDLE: pb.ProcessInfo.STATE_IDLE,
    State.LEASED: pb.ProcessInfo.STATE_LEASED,
    State.RUNNING: pb.ProcessInfo.STATE_LEASED,
    State.INTERRUPTING: pb.ProcessInfo.STATE_SETTLING,
    State.SETTLING: pb.ProcessInfo.STATE_SETTLING,
    State.STOPPING: pb.ProcessInfo.STATE_STOPPING,
    State.EXITED: pb.ProcessInfo.STATE_STOPPING,
    State.QUARANTINED: pb.ProcessInfo.STATE_QUARANTINED,
}


def snapshot(server: Server, taken: Snapshot, tenant: str, most: int) -> pb.WatchPoolsResponse:
    """Writes a snapshot: of each kind the rows that come first, at most so many."""
    processes = snapshots.longest_in_state(snapshots.processes_of(taken, tenant))
    return pb.WatchPoolsResponse(
        time=timestamp(taken.epoch + taken.now),
        server=_server(server, taken),
        pools=map(pool, snapshots.longest_waiting(taken, tenant, most)),
        processes=[process(row, taken) for row in processes[:most]],
    )


def _server(server: Server, taken: Snapshot) -> pb.ServerInfo:
    return pb.ServerInfo(
        server_id=server.server_id,
        server_version=server.version,
        agent_version=server.agent_version(),
        isolation=server.isolation,
        start_time=timestamp(server.start_time),
        draining=taken.draining,
        processes=len(taken.processes),
        max_processes=taken.slots,
        resident_bytes=taken.resident,
    )


def pool(row: PoolRow) -> pb.PoolInfo:
    """Writes a pool."""
    counts = dict.fromkeys(STATES.values(), 0)
    for state, count in row.states.items():
        counts[STATES[state]] += count
    return pb.PoolInfo(
        tenant_id=row.key.tenant,
        profile=row.key.profile,
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
        counters=_counters(row.tally),
    )


def _counters(tally: Tally) -> pb.PoolCounters:
    return pb.PoolCounters(
        turns_warm=tally.turns_warm,
        turns_cold=tally.turns_cold,
        turns_resumed=tally.turns_resumed,
        turns_queued=tally.turns_queued,
        turns_refused=tally.turns_refused,
        turns_lost=tally.turns_lost,
        wait_time=duration(tally.wait_time),
        processes_started=tally.processes_started,
        start_time=duration(tally.start_time),
        starts_failed=tally.starts_failed,
        processes_died=tally.processes_died,
        processes_retired=tally.processes_retired,
        processes_killed=tally.processes_killed,
        stage_times=[_stage(name, tally.stages[name]) for name in MARKS if name in tally.stages],
    )


def _stage(name: str, sum: StageSum) -> pb.StageTime:
    return pb.StageTime(stage=name, turns=sum.turns, time=duration(sum.time / 1e9))


def process(row: ProcessRow, taken: Snapshot) -> pb.ProcessInfo:
    """Writes a process of a snapshot."""
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
    """Writes a duration."""
    written = duration_pb2.Duration()
    written.FromMicroseconds(round(1e6 * seconds))
    return written
