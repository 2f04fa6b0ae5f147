"""The states of a process, and which follows which.

The life of a process, which belongs to one session from its start to its end:

    STARTING -> IDLE -> LEASED -> RUNNING -> SETTLING -> IDLE
                        LEASED -> IDLE or SETTLING (the prompt was not to be written after all)
                                  RUNNING -> IDLE (proven quiet with its report)
                                  RUNNING -> INTERRUPTING -> IDLE
    any of these -> STOPPING -> EXITED, or STOPPING -> QUARANTINED -> EXITED

* It is granted to a turn (LEASED), takes the prompt's first byte (RUNNING), and its agent's report
  comes (SETTLING) before it is proven quiet (IDLE). An interrupt is told to the agent
  (INTERRUPTING), whose answer and last line together are the proof.
* Work that no turn asked for takes an idle process to SETTLING. One that dies by itself goes to
  EXITED from wherever it is; one that survives SIGKILL is in QUARANTINED, and keeps its place.

What always holds, by the numbers that other files use:

 1. A process has at most one lease; `epoch` counts them, so that a late answer is known.
 2. Its tenant and its session are set once. A lease has the session of its process.
 3. There are at most as many processes as slots, whatever their state.
 4. A session has at most one process, one that is stopping included: two would write the same
    transcript, and the CLI does not prevent that.
 5. Queues stay within their bounds, and a waiter stands in one of them, once.
 6. No wakeup is lost: no waiter stands while its session's process is idle, or while a place is
    free that it may have.
 7. A turn that is over or was withdrawn holds nothing; one that runs has exactly one process.
 8. IDLE means proven quiet: no report, end or answer is owed, and nothing works unasked.
 9. A frame reaches only the turn that it answers, and a stream has one end.
10. Only idle processes are evicted.
11. A place is free when nothing is left of the process's tree, not when it is told to stop.
12. Once the pool is closed and left, there is no process and no waiter.
13. Every state but IDLE ends by itself: a start has its timeout, a write 5 s, a turn its watchdog
    and limits, an interrupt 5 s, settling 2 s, a stop 13 s and then another look each 5 s.

The trap: an agent's report is not the end of its turn. Lines follow it, and a process that is
granted at the report tells the end of one turn as the beginning of the next. Equally, the answer to
an interrupt proves nothing by itself, since a queued message may still run behind it.

Do not add an arrow to IDLE that has no proof behind it, and change a state in `Registry.move`
only: it counts, logs and cancels the timer of the state before. Knows nothing of who moves a
process or why.
"""

import enum


class ProcessState(enum.Enum):
    """The state of a process. A process is in one state and has one owner."""

    STARTING = "starting"  # spawned, not ready; owned by the supervisor
    IDLE = "idle"  # proven quiet; owned by the pool
    LEASED = "leased"  # granted, no byte of the prompt written; owned by the lease
    RUNNING = "running"  # serves a turn; owned by the lease
    INTERRUPTING = "interrupting"  # told to stop its turn, proof awaited
    SETTLING = "settling"  # its turn has ended or its work is unsolicited; not proven quiet
    STOPPING = "stopping"  # told to stop, with one signal after another
    QUARANTINED = "quarantined"  # survived SIGKILL
    EXITED = "exited"  # the main process is gone, its descendants may still run


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

#: A process that was working when it was stopped may be busy or hang, so it gets less time.
SUSPECT = frozenset({ProcessState.RUNNING, ProcessState.INTERRUPTING, ProcessState.SETTLING})
#: Processes in these states are not stopped before their turn has ended.
BUSY = frozenset(
    {ProcessState.LEASED, ProcessState.RUNNING, ProcessState.INTERRUPTING, ProcessState.SETTLING}
)
#: The slots of these processes become free by themselves: no other process is evicted for them.
COMING_FREE = frozenset({ProcessState.STOPPING, ProcessState.EXITED})
