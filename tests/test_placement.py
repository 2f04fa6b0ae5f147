"""What placement decides, case by case and for any state."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovard.core.lifecycle import COMING_FREE, State
from samovard.core.placement import Decision, Mode, Seat, View, decide
from samovard.core.records import SessionKey

A, B, C, D = (SessionKey("acme", name) for name in "abcd")
BUSY = State.RUNNING


def view(
    *waiting: SessionKey,
    seats: tuple[Seat, ...] = (),
    slots: int = 2,
    starting: int = 2,
    mode: Mode = Mode.RUNNING,
    now: float = 100.0,
    starts: bool = True,
) -> View:
    return View(now, mode, slots, starting, 60.0, waiting, seats, starts)


def seat(key: SessionKey, state: State, since: float = 90.0) -> Seat:
    return Seat(f"p-{key.session}", key, state, since)


CASES = {
    "nobody waits": (view(), Decision()),
    "a new session is started": (view(A), Decision(start=(A,))),
    "an idle process is granted": (
        view(A, seats=(seat(A, State.IDLE),)),
        Decision(grant=("p-a",), wake_at=150.0),
    ),
    "a busy session waits for its own process": (view(A, seats=(seat(A, BUSY),)), Decision()),
    "a starting session is not started twice": (
        view(A, seats=(seat(A, State.STARTING),)),
        Decision(),
    ),
    "a stopping process keeps its session from a second one": (
        view(A, seats=(seat(A, State.STOPPING),)),
        Decision(),
    ),
    "starts are bounded": (view(A, B, C, slots=4, starting=1), Decision(start=(A,))),
    "starts under way count": (
        view(B, seats=(seat(A, State.STARTING),), starting=1),
        Decision(),
    ),
    "the least recently used idle process is evicted": (
        view(C, seats=(seat(A, State.IDLE, 80.0), seat(B, State.IDLE, 70.0))),
        Decision(stop=(("p-b", "evicted"),), wake_at=130.0),
    ),
    "a busy process is never evicted": (view(C, seats=(seat(A, BUSY), seat(B, BUSY))), Decision()),
    "a slot that comes free is waited for": (
        view(C, seats=(seat(A, State.IDLE), seat(B, State.STOPPING))),
        Decision(wake_at=150.0),
    ),
    "a quarantined process does not come free": (
        view(C, seats=(seat(A, State.IDLE), seat(B, State.QUARANTINED))),
        Decision(stop=(("p-a", "evicted"),), wake_at=150.0),
    ),
    "an idle process whose session waits is not evicted": (
        view(A, C, seats=(seat(A, State.IDLE), seat(B, BUSY))),
        Decision(grant=("p-a",), wake_at=150.0),
    ),
    "a process is stopped after its idle time": (
        view(seats=(seat(A, State.IDLE, 40.0), seat(B, State.IDLE, 41.0))),
        Decision(stop=(("p-a", "idle"),), wake_at=101.0),
    ),
    "where nothing can start, who needs a start is refused and the rest is served": (
        view(A, B, seats=(seat(A, State.IDLE), seat(C, State.IDLE, 10.0)), starts=False),
        Decision(grant=("p-a",), refuse=(B,)),
    ),
    "draining grants and starts nothing": (
        view(A, B, seats=(seat(A, State.IDLE),), mode=Mode.DRAINING),
        Decision(stop=(("p-a", "drained"),)),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    """Each case of the table is decided as it says."""
    state, decision = CASES[name]
    assert decide(state) == decision


KEYS = [SessionKey(tenant, name) for tenant in ("acme", "blue") for name in "abc"]


@st.composite
def views(draw: st.DrawFn) -> View:
    sessions = draw(st.lists(st.sampled_from(KEYS), unique=True))
    seats = tuple(
        Seat(f"{k.tenant}-{k.session}", k, draw(st.sampled_from(State)), draw(st.floats(0, 100)))
        for k in sessions
    )
    waiting = draw(st.lists(st.sampled_from(KEYS), unique=True))
    slots = draw(st.integers(1, 6))
    mode = draw(st.sampled_from(Mode))
    slots, starting = max(slots, len(seats)), draw(st.integers(1, 3))
    return View(100.0, mode, slots, starting, 60.0, waiting, seats, draw(st.booleans()))


def carried_out(state: View, decision: Decision) -> View:
    """Gives the pool as it is once a decision was carried out."""
    moved = dict.fromkeys(decision.grant, State.LEASED) | {
        process_id: State.STOPPING for process_id, _ in decision.stop
    }
    seats = [s._replace(state=moved.get(s.process_id, s.state)) for s in state.seats]
    seats += [Seat(f"new-{i}", key, State.STARTING, 100.0) for i, key in enumerate(decision.start)]
    granted = {s.session for s in state.seats if s.process_id in decision.grant}
    waiting = [key for key in state.waiting if key not in {*granted, *decision.refuse}]
    return replace(state, waiting=waiting, seats=seats)


@given(views())
def test_deciding_again_on_the_result_says_nothing(state: View) -> None:
    """A decision, once carried out, leaves nothing to decide."""
    assert not decide(carried_out(state, decide(state)))


@given(views())
def test_only_idle_processes_are_granted_or_stopped(state: View) -> None:
    """No process but an idle one is granted, evicted or expired, and none is both."""
    decision = decide(state)
    idle = {s.process_id for s in state.seats if s.state is State.IDLE}
    stopped = {process_id for process_id, _ in decision.stop}
    assert {*decision.grant} <= idle
    assert stopped <= idle
    assert not stopped & {*decision.grant}


@given(views())
def test_bounds_hold(state: View) -> None:
    """There are never more processes than slots, nor more starts than allowed, nor two
    processes of one session."""
    after = carried_out(state, decide(state))
    starting = [s for s in state.seats if s.state is State.STARTING]
    started = [s for s in after.seats if s.process_id.startswith("new-")]
    assert len(after.seats) <= state.slots
    assert len(started) <= max(state.max_starting - len(starting), 0)
    assert len({s.session for s in after.seats}) == len(after.seats)


@given(views())
def test_where_nothing_can_start_nothing_starts_and_what_idles_is_kept(state: View) -> None:
    """And nobody waits for a start that cannot come."""
    if state.starts or state.mode is not Mode.RUNNING:
        return
    decision = decide(state)
    assert not decision.start
    assert not decision.stop
    seated = {seat.session for seat in state.seats}
    assert {*carried_out(state, decision).waiting} <= seated


@given(views())
def test_no_waiter_is_forgotten(state: View) -> None:
    """While the pool runs, nobody waits beside an idle process of its session, a free
    slot that may start, or a process that could be evicted for want of slots."""
    if state.mode is not Mode.RUNNING:
        return
    after = carried_out(state, decide(state))
    seats = {s.session: s for s in after.seats}
    assert all(seats[k].state is not State.IDLE for k in after.waiting if k in seats)
    homeless = [key for key in after.waiting if key not in seats]
    free = after.slots - len(after.seats)
    starting = sum(s.state is State.STARTING for s in after.seats)
    assert not (homeless and free and starting < after.max_starting)
    coming = sum(s.state in COMING_FREE for s in after.seats)
    idle = [s for s in after.seats if s.state is State.IDLE and s.session not in after.waiting]
    assert not (idle and len(homeless) > free + coming)
