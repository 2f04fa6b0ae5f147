"""The states of a process, and which follows which.

Knows nothing of who moves a process or why.
"""

import enum


class State(enum.Enum):
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


TRANSITIONS: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.IDLE, State.STOPPING, State.EXITED}),
    State.IDLE: frozenset({State.LEASED, State.SETTLING, State.STOPPING, State.EXITED}),
    State.LEASED: frozenset(
        {State.RUNNING, State.IDLE, State.SETTLING, State.STOPPING, State.EXITED}
    ),
    State.RUNNING: frozenset(
        {State.IDLE, State.SETTLING, State.INTERRUPTING, State.STOPPING, State.EXITED}
    ),
    State.INTERRUPTING: frozenset({State.IDLE, State.STOPPING, State.EXITED}),
    State.SETTLING: frozenset({State.IDLE, State.STOPPING, State.EXITED}),
    State.STOPPING: frozenset({State.EXITED, State.QUARANTINED}),
    State.QUARANTINED: frozenset({State.EXITED}),
    State.EXITED: frozenset(),
}

#: A process that was at work when it was stopped may be busy or wedged: it gets less time.
SUSPECT = frozenset({State.RUNNING, State.INTERRUPTING, State.SETTLING})
#: Those that are to be left alone until their turn is over.
BUSY = frozenset({State.LEASED, State.RUNNING, State.INTERRUPTING, State.SETTLING})
#: Slots that come free by themselves, so that nobody need be evicted for them.
COMING_FREE = frozenset({State.STOPPING, State.EXITED})
