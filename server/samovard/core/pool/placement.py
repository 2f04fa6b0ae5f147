"""The decision which processes to start, to stop and to grant.

It is a pure function of the pool's state and the time. The pool carries it out.
"""

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from samovard.core.pool.states import COMING_FREE, ProcessState
from samovard.core.records import SessionKey

_UNUSED = COMING_FREE | {ProcessState.IDLE}


class Mode(enum.Enum):
    """The mode of the pool. `CLOSING` grants and starts nothing, and stops idle processes."""

    RUNNING = enum.auto()
    CLOSING = enum.auto()


class ProcessView(NamedTuple):
    """A process as placement sees it. `since` is when it entered its state, in seconds."""

    process_id: str
    session: SessionKey
    state: ProcessState
    since: float


@dataclass(frozen=True, slots=True)
class View:
    """The pool at one moment. Times and durations are in seconds.

    `waiting` is the sessions whose first turn waits, each once, in the order in which to serve
    them. `starts` is False if no process can be started at all. `reserve` is how many slots are
    kept for tenants that run nothing. `most` is how many processes a tenant may have, for those
    with a bound.
    """

    now: float
    mode: Mode
    slots: int
    max_starting: int
    idle_ttl: float
    waiting: Sequence[SessionKey]
    processes: Sequence[ProcessView]
    starts: bool = True
    reserve: int = 0
    most: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The steps to carry out.

    `grant` is the processes to grant to their session's first waiter; `start` is the sessions to
    start a process for; `stop` is pairs of a process to stop and the cause; `refuse` is the
    sessions whose turns need a start that is impossible. `wake_at` is when to decide again at
    the latest, in seconds, or None.
    """

    grant: tuple[str, ...] = ()
    start: tuple[SessionKey, ...] = ()
    stop: tuple[tuple[str, str], ...] = ()
    wake_at: float | None = None
    refuse: tuple[SessionKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.grant or self.start or self.stop or self.refuse)


def decide(view: View) -> Decision:
    """Return the next steps. Idempotent: once they are carried out there are no more."""
    if view.mode is Mode.CLOSING:
        # Only idle ones: running turns may end, and `Pool.close` stops starting processes.
        idle = (s for s in view.processes if s.state is ProcessState.IDLE)
        return Decision(stop=tuple((process.process_id, "drained") for process in idle))
    by_session = {process.session: process for process in view.processes}
    granted = tuple(
        by_session[key].process_id
        for key in view.waiting
        if key in by_session and by_session[key].state is ProcessState.IDLE
    )
    homeless = [key for key in view.waiting if key not in by_session]
    if not view.starts:
        # Idle processes are kept beyond their TTL: they could not be replaced.
        return Decision(granted, refuse=tuple(homeless))
    start, evict = _place(view, homeless)
    expired = _expired(view)
    # A process may be both evicted and expired: in a dict it is stopped once.
    stop = dict.fromkeys(evict, "evicted") | dict.fromkeys(expired, "idle")
    return Decision(granted, start, tuple(stop.items()), _wake_at(view))


def relief(view: View) -> Decision:
    """Return the decision to stop one idle process to free its resources, if there is one."""
    return Decision(stop=tuple((process.process_id, "evicted") for process in _victims(view)[:1]))


def _place(view: View, homeless: list[SessionKey]) -> tuple[tuple[SessionKey, ...], list[str]]:
    """Return the sessions to start now, and the idle processes to evict for the next ones."""
    starting = sum(process.state is ProcessState.STARTING for process in view.processes)
    may_start = max(view.max_starting - starting, 0)
    free = max(view.slots - len(view.processes), 0)
    homeless, crowded = _within_bounds(view, _beside_the_reserve(view, homeless))
    # A slot that becomes free by itself needs no eviction, unless its own session waits for it
    # again. A session that may not start yet needs no slot yet: a process evicted for it would
    # be missing until then.
    coming = [process.session for process in view.processes if process.state in COMING_FREE]
    wanted = min(len(homeless) + len(set(coming) & set(view.waiting)), may_start)
    missing = max(wanted - free - len(coming), 0)
    start = tuple(homeless[: min(free, may_start)])
    victims = _victims(view)
    evict, kept = victims[:missing], victims[missing:]
    coming += [process.session for process in evict]
    evict += _own(kept, crowded, coming, may_start - len(homeless))
    return start, [process.process_id for process in evict]


def _beside_the_reserve(view: View, homeless: list[SessionKey]) -> list[SessionKey]:
    """Return the sessions for which there are slots beside those kept for other tenants."""
    if not view.reserve:
        return homeless
    waiting = set(view.waiting)
    busy = Counter(
        process.session.tenant
        for process in view.processes
        if process.state not in _UNUSED
        # An idle one that is waited for is about to be granted.
        or (process.state is ProcessState.IDLE and process.session in waiting)
    )
    left = view.slots - view.reserve - busy.total()
    found: list[SessionKey] = []
    for key in homeless:
        if left > 0 or not busy[key.tenant]:
            found.append(key)
            busy[key.tenant] += 1
            left -= 1
    return found


def _within_bounds(view: View, homeless: list[SessionKey]) -> tuple[list[SessionKey], Counter[str]]:
    """Return the sessions whose tenants may have one more process, and the count of the others."""
    has = Counter(process.session.tenant for process in view.processes)
    found: list[SessionKey] = []
    crowded = Counter[str]()
    for key in homeless:
        if key.tenant in view.most and has[key.tenant] >= view.most[key.tenant]:
            crowded[key.tenant] += 1
        else:
            found.append(key)
            has[key.tenant] += 1
    return found, crowded


def _own(
    victims: list[ProcessView], crowded: Counter[str], coming: list[SessionKey], may_start: int
) -> list[ProcessView]:
    """Return the idle processes that make room for sessions of their own tenants."""
    wanted = crowded - Counter(key.tenant for key in coming)
    found: list[ProcessView] = []
    for process in victims:
        if wanted[process.session.tenant] > 0 and len(found) < may_start:
            wanted[process.session.tenant] -= 1
            found.append(process)
    return found


def _victims(view: View) -> list[ProcessView]:
    """Return the idle processes of sessions without waiting turns, least recently used first."""
    waiting = set(view.waiting)
    idle = (s for s in view.processes if s.state is ProcessState.IDLE and s.session not in waiting)
    return sorted(idle, key=lambda process: process.since)


def _expired(view: View) -> list[str]:
    return [s.process_id for s in _victims(view) if s.since + view.idle_ttl <= view.now]


def _wake_at(view: View) -> float | None:
    # Those that have expired are stopped or granted by the same decision.
    ends = (s.since + view.idle_ttl for s in view.processes if s.state is ProcessState.IDLE)
    return min((end for end in ends if end > view.now), default=None)
