"""Counts what there is in the pool at one moment. Decides nothing."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable

from samovard.core.pool.pool import Pool
from samovard.core.pool.states import ProcessState
from samovard.core.sessions.sessions import Sessions
from samovard.telemetry.recorder import Levels


def levels_of(
    pool: Pool,
    sessions: Sessions,
    profiles: Iterable[str],
    resident: Callable[[int], int],
    removing: int,
    certificate: float | None,
    *,
    audit_down: bool,
) -> Levels:
    """Counts turns by profile, and processes, their memory and sessions by state.

    What there is none of counts as 0, so that it is told. `resident` gives the bytes of
    memory of a process, `removing` is how many entries are still to be erased,
    `certificate` the seconds until the served one expires, `audit_down` whether the audit
    log cannot be written.
    """
    names = tuple(profiles)
    running, waiting = Counter(dict.fromkeys(names, 0)), Counter(dict.fromkeys(names, 0))
    states = Counter({state.value: 0 for state in ProcessState})
    memory = Counter(states)
    warm = busy = 0
    for process in pool:
        states[process.state.value] += 1
        memory[process.state.value] += resident(process.handle.pid)
        running[process.launch.profile] += process.lease is not None
        warm += process.state is ProcessState.IDLE
        busy += process.lease is not None
    waiters, now = pool.waiters, asyncio.get_running_loop().time()
    for waiter in waiters:
        waiting[waiter.turn.facts.profile] += 1
    oldest = max((now - waiter.since for waiter in waiters), default=0.0)
    counted = {"running": busy, "warm": warm, "suspended": max(len(sessions) - warm - busy, 0)}
    return Levels(
        running, waiting, oldest, states, memory, counted, removing, certificate, audit_down
    )
