"""The states of a process, and which follows which.

Knows nothing of who moves a process or why.
"""

import enum


class ProcessState(enum.Enum):
    """Where a process is in its life. A process is in one state and has one owner."""

    STARTING = "starting"  # spawned, not ready; owned by whoever starts it
    IDLE = "idle"  # proven quiet; owned by the pool
    LEASED = "leased"  # granted, no byte of the prompt written; owned by the lease
    RUNNING = "running"  # serves a turn; owned by the lease
    INTERRUPTING = "interrupting"  # told to stop its turn, proof awaited
    SETTLING = "settling"  # its turn is over or was never ours, not proven quiet
    STOPPING = "stopping"  # the stop ladder runs
    QUARANTINED = "quarantined"  # killed and still there
    EXITED = "exited"  # the main process is gone, its tree perhaps not


TRANSITIONS: dict[ProcessState, frozenset[ProcessState]] = {
    ProcessState.STARTING: frozenset(
        {ProcessState.IDLE, ProcessState.STOPPING, ProcessState.EXITED}
    ),
    ProcessState.IDLE: frozenset(
        {ProcessState.LEASED, ProcessState.SETTLING, ProcessState.STOPPING, ProcessState.EXITED}
    ),
    ProcessState.LEASED: frozenset(
        {
            ProcessState.RUNNING,
            ProcessState.IDLE,
            ProcessState.SETTLING,
            ProcessState.STOPPING,
            ProcessState.EXITED,
        }
    ),
    ProcessState.RUNNING: frozenset(
        {
            ProcessState.IDLE,
            ProcessState.SETTLING,
            ProcessState.INTERRUPTING,
            ProcessState.STOPPING,
            ProcessState.EXITED,
        }
    ),
    ProcessState.INTERRUPTING: frozenset(
        {ProcessState.IDLE, ProcessState.STOPPING, ProcessState.EXITED}
    ),
    ProcessState.SETTLING: frozenset(
        {ProcessState.IDLE, ProcessState.STOPPING, ProcessState.EXITED}
    ),
    ProcessState.STOPPING: frozenset({ProcessState.EXITED, ProcessState.QUARANTINED}),
    ProcessState.QUARANTINED: frozenset({ProcessState.EXITED}),
    ProcessState.EXITED: frozenset(),
}

#: A process that was at work when it was stopped may be busy or wedged: it gets less time.
SUSPECT = frozenset({ProcessState.RUNNING, ProcessState.INTERRUPTING, ProcessState.SETTLING})
#: Those that are to be left alone until their turn is over.
BUSY = frozenset(
    {ProcessState.LEASED, ProcessState.RUNNING, ProcessState.INTERRUPTING, ProcessState.SETTLING}
)
#: Slots that come free by themselves, so that nobody need be evicted for them.
COMING_FREE = frozenset({ProcessState.STOPPING, ProcessState.EXITED})
