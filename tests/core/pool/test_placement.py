"""What placement decides, case by case and for any state."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from samovard.core.pool.placement import Decision, Mode, ProcessView, View, decide
from samovard.core.pool.states import COMING_FREE, ProcessState
from samovard.core.records import SessionKey

A, B, C, D = (SessionKey("acme", name) for name in "abcd")
BUSY = ProcessState.RUNNING


def view(
    *waiting: SessionKey,
    processes: tuple[ProcessView, ...] = (),
    slots: int = 2,
    starting: int = 2,
    mode: Mode = Mode.RUNNING,
    now: float = 100.0,
    starts: bool = True,
) -> View:
    return View(now, mode, slots, starting, 60.0, waiting, processes, starts)


def process(key: SessionKey, state: ProcessState, since: float = 90.0) -> ProcessView:
    return ProcessView(f"p-{key.session}", key, state, since)


CASES = {
    "nobody waits": (view(), Decision()),
    "a new session is started": (view(A), Decision(start=(A,))),
    "an idle process is granted": (
        view(A, processes=(process(A, ProcessState.IDLE),)),
        Decision(grant=("p-a",), wake_at=150.0),
    ),
    "a busy session waits for its own process": (
        view(A, processes=(process(A, BUSY),)),
        Decision(),
    ),
    "a starting session is not started twice": (
        view(A, processes=(process(A, ProcessState.STARTING),)),
        Decision(),
    ),
    "a stopping process keeps its session from a second one": (
        view(A, processes=(process(A, ProcessState.STOPPING),)),
        Decision(),
    ),
    "starts are bounded": (view(A, B, C, slots=4, starting=1), Decision(start=(A,))),
    "starts under way count": (
        view(B, processes=(process(A, ProcessState.STARTING),), starting=1),
        Decision(),
    ),
    "the least recently used idle process is evicted": (
        view(
            C, processes=(process(A, ProcessState.IDLE, 80.0), process(B, ProcessState.IDLE, 70.0))
        ),
        Decision(stop=(("p-b", "evicted"),), wake_at=130.0),
    ),
    "a busy process is never evicted": (
        view(C, processes=(process(A, BUSY), process(B, BUSY))),
        Decision(),
    ),
    "a slot that comes free is waited for": (
        view(C, processes=(process(A, ProcessState.IDLE), process(B, ProcessState.STOPPING))),
        Decision(wake_at=150.0),
    ),
    "a quarantined process does not come free": (
        view(C, processes=(process(A, ProcessState.IDLE), process(B, ProcessState.QUARANTINED))),
        Decision(stop=(("p-a", "evicted"),), wake_at=150.0),
    ),
    "nothing is evicted for a turn that may not start yet": (
        view(
            C,
            processes=(process(A, ProcessState.IDLE), process(B, ProcessState.STARTING)),
            starting=1,
        ),
        Decision(wake_at=150.0),
    ),
    "no more is evicted than may start": (
        view(
            C,
            D,
            processes=(process(A, ProcessState.IDLE, 80.0), process(B, ProcessState.IDLE, 70.0)),
            starting=1,
        ),
        Decision(stop=(("p-b", "evicted"),), wake_at=130.0),
    ),
    "a start that is made now leaves no room for an eviction": (
        view(C, D, processes=(process(A, ProcessState.IDLE),), starting=1),
        Decision(start=(C,), wake_at=150.0),
    ),
    "a slot that comes free uses up the room to start": (
        view(
            B,
            C,
            D,
            processes=(process(A, ProcessState.IDLE), process(B, ProcessState.EXITED)),
            starting=1,
        ),
        Decision(wake_at=150.0),
    ),
    "a slot that comes free to its own session serves no other": (
        view(B, C, processes=(process(A, ProcessState.IDLE), process(B, ProcessState.STOPPING))),
        Decision(stop=(("p-a", "evicted"),), wake_at=150.0),
    ),
    "an idle process whose session waits is not evicted": (
        view(A, C, processes=(process(A, ProcessState.IDLE), process(B, BUSY))),
        Decision(grant=("p-a",), wake_at=150.0),
    ),
    "a process is stopped after its idle time": (
        view(processes=(process(A, ProcessState.IDLE, 40.0), process(B, ProcessState.IDLE, 41.0))),
        Decision(stop=(("p-a", "idle"),), wake_at=101.0),
    ),
    "where nothing can start, who needs a start is refused and the rest is served": (
        view(
            A,
            B,
            processes=(process(A, ProcessState.IDLE), process(C, ProcessState.IDLE, 10.0)),
            starts=False,
        ),
        Decision(grant=("p-a",), refuse=(B,)),
    ),
    "draining grants and starts nothing": (
        view(A, B, processes=(process(A, ProcessState.IDLE),), mode=Mode.CLOSING),
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
    processes = tuple(
        ProcessView(
            f"{k.tenant}-{k.session}",
            k,
            draw(st.sampled_from(ProcessState)),
            draw(st.floats(0, 100)),
        )
        for k in sessions
    )
    waiting = draw(st.lists(st.sampled_from(KEYS), unique=True))
    slots = draw(st.integers(1, 6))
    mode = draw(st.sampled_from(Mode))
    slots, starting = max(slots, len(processes)), draw(st.integers(1, 3))
    reserve = draw(st.integers(0, min(slots - 1, 2)))
    most = draw(st.dictionaries(st.sampled_from(["acme", "blue"]), st.integers(1, 3)))
    return View(
        100.0, mode, slots, starting, 60.0, waiting, processes, draw(st.booleans()), reserve, most
    )


def carried_out(state: View, decision: Decision) -> View:
    """Gives the pool as it is once a decision was carried out."""
    moved = dict.fromkeys(decision.grant, ProcessState.LEASED) | {
        process_id: ProcessState.STOPPING for process_id, _ in decision.stop
    }
    processes = [s._replace(state=moved.get(s.process_id, s.state)) for s in state.processes]
    processes += [
        ProcessView(f"new-{'-'.join(key)}", key, ProcessState.STARTING, 100.0)
        for key in decision.start
    ]
    granted = {s.session for s in state.processes if s.process_id in decision.grant}
    waiting = [key for key in state.waiting if key not in {*granted, *decision.refuse}]
    return replace(state, waiting=waiting, processes=processes)


@given(views())
def test_deciding_again_on_the_result_says_nothing(state: View) -> None:
    """A decision, once carried out, leaves nothing to decide."""
    assert not decide(carried_out(state, decide(state)))


@given(views())
def test_only_idle_processes_are_granted_or_stopped(state: View) -> None:
    """No process but an idle one is granted, evicted or expired, and none is both."""
    decision = decide(state)
    idle = {s.process_id for s in state.processes if s.state is ProcessState.IDLE}
    stopped = {process_id for process_id, _ in decision.stop}
    assert {*decision.grant} <= idle
    assert stopped <= idle
    assert not stopped & {*decision.grant}


@given(views())
def test_bounds_hold(state: View) -> None:
    """There are never more processes than slots, nor more starts than allowed, nor two
    processes of one session."""
    after = carried_out(state, decide(state))
    starting = [s for s in state.processes if s.state is ProcessState.STARTING]
    started = [s for s in after.processes if s.process_id.startswith("new-")]
    assert len(after.processes) <= state.slots
    assert len(started) <= max(state.max_starting - len(starting), 0)
    assert len({s.session for s in after.processes}) == len(after.processes)


@given(views())
def test_where_nothing_can_start_nothing_starts_and_what_idles_is_kept(state: View) -> None:
    """And nobody waits for a start that cannot come."""
    if state.starts or state.mode is not Mode.RUNNING:
        return
    decision = decide(state)
    assert not decision.start
    assert not decision.stop
    seated = {process.session for process in state.processes}
    assert {*carried_out(state, decision).waiting} <= seated


@given(views())
def test_no_waiter_is_forgotten(state: View) -> None:
    """While the pool runs, nobody waits beside an idle process of its session, a free
    slot that may start, or a process to evict for a start that may be made now."""
    if state.mode is not Mode.RUNNING:
        return
    state = replace(state, reserve=0, most={})
    after = carried_out(state, decide(state))
    processes = {s.session: s for s in after.processes}
    assert all(processes[k].state is not ProcessState.IDLE for k in after.waiting if k in processes)
    homeless = [key for key in after.waiting if key not in processes]
    free = after.slots - len(after.processes)
    assert not (homeless and free and may_start(after))
    idle = [
        s
        for s in after.processes
        if s.state is ProcessState.IDLE and s.session not in after.waiting
    ]
    assert not (idle and min(len(homeless), may_start(after)) > free + coming(after))


def of(tenant: str, processes: Iterable[ProcessView]) -> list[ProcessView]:
    return [process for process in processes if process.session.tenant == tenant]


@given(views())
def test_no_tenant_has_more_processes_than_it_may(state: View) -> None:
    """Unless it had them before; and one that has fewer does not wait beside a free slot."""
    state = replace(state, mode=Mode.RUNNING, starts=True, reserve=0)
    after = carried_out(state, decide(state))
    for tenant in ("acme", "blue"):
        has, most = len(of(tenant, after.processes)), state.most.get(tenant, 6)
        assert has <= max(most, len(of(tenant, state.processes)))
        seated = {process.session for process in after.processes}
        waits = [k for k in after.waiting if k.tenant == tenant and k not in seated]
        free = after.slots - len(after.processes)
        assert not (waits and has < most and free and may_start(after))


@given(views())
def test_a_tenants_own_idle_process_makes_room_within_its_bound(state: View) -> None:
    """It is not kept while another session of the tenant waits that could start now."""
    state = replace(state, mode=Mode.RUNNING, starts=True, reserve=0, most={"acme": 1, "blue": 1})
    after = carried_out(state, decide(state))
    seated = {process.session for process in after.processes}
    homeless = [key for key in after.waiting if key not in seated]
    for tenant in ("acme", "blue"):
        own = of(tenant, after.processes)
        idle = [p for p in own if p.state is ProcessState.IDLE and p.session not in after.waiting]
        waits = any(key.tenant == tenant for key in homeless)
        if waits and len(homeless) <= may_start(after) and idle:
            assert any(process.state in COMING_FREE for process in own)


@given(views())
def test_slots_are_kept_for_tenants_that_run_nothing(state: View) -> None:
    """A tenant that runs something starts no process in them; one that runs nothing may."""
    state = replace(state, mode=Mode.RUNNING, starts=True, most={})
    decision = decide(state)
    after = carried_out(state, decision)
    unused = {ProcessState.IDLE, *COMING_FREE}
    busy = [p for p in state.processes if p.state not in unused or p.process_id in decision.grant]
    beside = [key for key in decision.start if of(key.tenant, busy)]
    assert not beside or len(busy) + len(beside) <= state.slots - state.reserve
    seated = {process.session for process in after.processes}
    for key in after.waiting:
        if key not in seated and not of(key.tenant, [*busy, *_new(after)]):
            assert not (after.slots > len(after.processes) and may_start(after))


def _new(state: View) -> list[ProcessView]:
    return [process for process in state.processes if process.process_id.startswith("new-")]


def may_start(state: View) -> int:
    """Return how many processes may be started beside those that start."""
    return max(
        state.max_starting - sum(s.state is ProcessState.STARTING for s in state.processes), 0
    )


def coming(state: View) -> int:
    """Return how many slots come free by themselves."""
    return sum(s.state in COMING_FREE for s in state.processes)


def evicts(decision: Decision) -> bool:
    """Tell whether processes are stopped for the sake of others."""
    return any(cause == "evicted" for _, cause in decision.stop)


@given(views())
def test_no_more_idle_processes_are_evicted_than_can_be_started_instead(state: View) -> None:
    """Every slot that an eviction empties is one in which a start may be made."""
    state = replace(state, mode=Mode.RUNNING, starts=True, max_starting=1, idle_ttl=1000.0, most={})
    if evicts(decision := decide(state)):
        after = carried_out(state, decision)
        assert after.slots - len(after.processes) + coming(after) <= may_start(after)


MANY = [SessionKey(tenant, name) for tenant in ("acme", "blue") for name in "abcdef"]


@dataclass
class Run:
    """A pool in time: turns come, processes start, serve and end, in any order."""

    state: View
    served: int = 0

    def pump(self) -> None:
        """Decide and carry out until there is nothing to decide."""
        while decision := decide(self.state):
            self.state = after = carried_out(self.state, decision)
            empty = after.slots - len(after.processes) + coming(after)
            # A tenant at its bound stops its own process, also beside slots that are free.
            assert empty <= may_start(after) or not evicts(decision) or after.most
            self.served += len(decision.grant)

    def come(self, key: SessionKey) -> None:
        """Queue a turn of a session that has none in the queue."""
        if key not in self.state.waiting:
            self.state = replace(self.state, waiting=[*self.state.waiting, key])
            self.pump()

    def step(self, process: ProcessView) -> None:
        """Move one process on to the state that it reaches by itself."""
        then = {
            ProcessState.STARTING: ProcessState.IDLE,
            ProcessState.LEASED: ProcessState.IDLE,
        }.get(process.state)
        others = [s for s in self.state.processes if s is not process]
        moved = [] if then is None else [process._replace(state=then, since=self.state.now)]
        self.state = replace(self.state, processes=[*others, *moved], now=self.state.now + 0.01)
        self.pump()

    @property
    def moving(self) -> list[ProcessView]:
        """Return the processes that go on by themselves."""
        return [s for s in self.state.processes if s.state is not ProcessState.IDLE]


@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.booleans(),
    st.dictionaries(st.sampled_from(["acme", "blue"]), st.integers(1, 3)),
    st.data(),
)
def test_every_turn_is_served_in_the_end(
    slots: int, starting: int, keeps: bool, most: dict[str, int], data: st.DataObject
) -> None:
    """Whatever comes in which order: while a turn waits some process goes on, and once all
    have gone on no turn is left; no slot is emptied meanwhile that no start can fill."""
    reserve = int(keeps and slots > 1)
    run = Run(View(0.0, Mode.RUNNING, slots, starting, 1000.0, [], [], True, reserve, most))
    sent = 0
    for _ in range(data.draw(st.integers(0, 40))):
        choices: list[SessionKey | ProcessView] = [*MANY, *run.moving]
        what = data.draw(st.sampled_from(choices))
        if isinstance(what, ProcessView):
            run.step(what)
        elif what not in run.state.waiting:
            sent += 1
            run.come(what)
        assert not run.state.waiting or run.moving
    for _ in range(1000):
        if not run.moving:
            break
        run.step(data.draw(st.sampled_from(run.moving)))
    assert (run.served, list(run.state.waiting)) == (sent, [])
