"""What an operator is told of the pools: counted in a core without processes."""

from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answering_process import Company
from support.core_runner import collect, fails, started, story
from support.world import World, passes, turn_of

from samovard.core.errors import Misconfigured, SessionBusy
from samovard.core.events import StartMode
from samovard.core.operator import snapshot as snapshots
from samovard.core.operator.snapshot import PoolRow, ProcessRow, Snapshot, Waiting
from samovard.core.pool.counters import PoolCounters, PoolKey
from samovard.core.pool.states import ProcessState
from samovard.core.process import Broken
from samovard.core.records import SessionKey

ACME = PoolKey("acme", "default")
BLUE = PoolKey("blue", "default")


def row(
    name: str,
    state: ProcessState,
    pool: PoolKey = ACME,
    *,
    since: float = 90.0,
    stored: bool = True,
) -> ProcessRow:
    return ProcessRow(name, 7, pool, name, state, since - 1, since, 1, 100, "1", stored)


def taken(*processes: ProcessRow, **told: Any) -> Snapshot:
    return replace(Snapshot(100.0, 1e9, False, 4, processes), **told)


def look(w: World, tenant: str = "acme") -> PoolRow:
    resident = {process.handle.pid: 100 for process in w.pool}
    (pool,) = snapshots.pools_of(snapshots.take(w.pool, w.sessions, resident, 0.0), tenant)
    return pool


def told(w: World) -> dict[str, float]:
    """Gives what was counted of the tenant's pool, without what is 0."""
    counters = look(w).counters
    counts = {f.name: getattr(counters, f.name) for f in fields(counters) if f.name != "stages"}
    return {name: round(count, 3) for name, count in counts.items() if count}


def test_processes_are_counted_by_pool_and_state() -> None:
    """A pool is what one tenant has with one profile."""
    lean = PoolKey("acme", "lean")
    snapshot = taken(
        row("a", ProcessState.IDLE),
        row("b", ProcessState.RUNNING),
        row("c", ProcessState.IDLE),
        row("d", ProcessState.IDLE, lean),
    )
    pools = snapshots.pools_of(snapshot)
    assert [(pool.key, dict(pool.states), pool.resident) for pool in pools] == [
        (ACME, {ProcessState.IDLE: 2, ProcessState.RUNNING: 1}, 300),
        (lean, {ProcessState.IDLE: 1}, 100),
    ]


def test_the_oldest_waiter_is_what_max_wait_tells() -> None:
    """Turns wait in their tenant's pool; where none waits, none has waited."""
    snapshot = taken(
        row("b", ProcessState.IDLE, BLUE), waiting=(Waiting(ACME, 99.0), Waiting(ACME, 97.5))
    )
    assert [(p.waiting, p.max_wait) for p in snapshots.pools_of(snapshot)] == [(2, 2.5), (0, 0.0)]


def test_sessions_without_a_process_are_suspended() -> None:
    """Of those that the store has, those that no process serves; a process may serve one more."""
    snapshot = taken(
        row("a", ProcessState.IDLE),
        row("b", ProcessState.RUNNING, stored=False),
        counters={ACME: PoolCounters(sessions=3)},
    )
    assert [pool.suspended for pool in snapshots.pools_of(snapshot)] == [2]


def test_one_tenants_rows_are_its_own() -> None:
    """The filter leaves nothing of another tenant."""
    snapshot = taken(
        row("a", ProcessState.IDLE),
        row("b", ProcessState.IDLE, BLUE),
        counters={BLUE: PoolCounters(), ACME: PoolCounters()},
    )
    assert [p.key for p in snapshots.pools_of(snapshot, "blue")] == [BLUE]
    assert [p.process_id for p in snapshots.processes_of(snapshot, "blue")] == ["b"]


def test_processes_are_listed_oldest_first_and_watched_longest_in_state_first() -> None:
    """The one order is of their making, the other of their last change."""
    old = replace(row("old", ProcessState.RUNNING, since=99.0), created=1.0)
    new = replace(row("new", ProcessState.IDLE, since=95.0), created=2.0)
    rows = snapshots.processes_of(taken(new, old))
    assert rows == [old, new]
    assert snapshots.longest_in_state(rows) == [new, old]


def test_pools_whose_turns_wait_longest_come_first() -> None:
    """Then those with the most processes."""
    waits, busy, quiet = PoolKey("waits", "p"), PoolKey("busy", "p"), PoolKey("a-quiet", "p")
    snapshot = taken(
        row("a", ProcessState.IDLE, busy),
        waiting=(Waiting(waits, 50.0),),
        counters={quiet: PoolCounters(), waits: PoolCounters(), busy: PoolCounters()},
    )
    assert [p.key for p in snapshots.longest_waiting(snapshot, "", 9)] == [waits, busy, quiet]
    assert [p.key for p in snapshots.longest_waiting(snapshot, "", 1)] == [waits]
    assert [p.key for p in snapshots.longest_waiting(snapshot, "busy", 9)] == [busy]


NAMES = st.builds(
    PoolKey,
    st.from_regex("[a-z0-9][a-z0-9-]{0,2}", fullmatch=True),
    st.from_regex("[a-z0-9][a-z0-9._-]{0,2}", fullmatch=True),
)


@given(st.sets(NAMES), st.integers(1, 3))
def test_pages_of_pools_hold_each_once_by_name(names: set[PoolKey], size: int) -> None:
    """Whatever the names are: those of the next page come behind the last one's."""
    snapshot = taken(row("a", ProcessState.IDLE), counters=dict.fromkeys(names, PoolCounters()))
    listed: list[PoolKey] = []
    while page := snapshots.pools_of(snapshot, "", listed[-1] if listed else None, size):
        listed += [pool.key for pool in page]
    assert listed == sorted(names | {ACME})


@story()
async def test_turns_are_counted_by_how_they_began(w: World) -> None:
    """Cold, warm, and resumed once the process was lost."""
    for _ in range(3):
        await w.turn()
    w.stage.last.die()
    await passes(1.0)
    assert started(await w.turn()).start_mode is StartMode.RESUMED
    counted = told(w)
    assert (counted["turns_cold"], counted["turns_warm"], counted["turns_resumed"]) == (1, 2, 1)
    assert counted["processes_died"] == 1
    assert counted["processes_started"] == 2
    assert counted["start_time"] == pytest.approx(2 * w.stage.start_time)


@story()
async def test_stages_of_finished_turns_are_summed(w: World) -> None:
    """Those that the turn reached, until it finished; a turn that was lost has none."""
    await w.turn()
    await w.turn()
    stream = await w.send()
    (await w.running(prompts=3)).die()
    await fails(stream)
    stages = look(w).counters.stages
    assert list(stages) == [
        "admit",
        "process_ready",
        "prompt_write",
        "first_event",
        "first_text",
        "finish",
    ]
    assert {stage.turns for stage in stages.values()} == {2}
    assert stages["process_ready"].time / 1e9 == pytest.approx(w.stage.start_time)
    seconds = sum(stage.time for stage in stages.values()) / 1e9
    assert seconds == pytest.approx(w.stage.start_time, abs=0.1)


@story(slots=1)
async def test_turns_that_wait_are_counted_with_their_time(w: World) -> None:
    """A turn that is served at once has not waited; one behind another has, as long as that."""
    await w.turn()
    before = told(w)
    busy = await w.send()
    actor = await w.running(prompts=2)
    assert told(w)["turns_queued"] == before["turns_queued"] == 1  # for its process to start
    behind = await w.send("behind")
    await passes(7.0)
    pool = look(w)
    assert (pool.waiting, pool.counters.turns_queued) == (1, 1)
    assert pool.max_wait == pytest.approx(7.0, abs=0.1)
    actor.answer()
    await collect(busy)
    await w.running(prompts=3)
    actor.answer()
    await collect(behind)
    now = told(w)
    assert now["turns_queued"] == 2
    assert now["wait_time"] - before["wait_time"] == pytest.approx(7.0, abs=0.1)


@story()
async def test_refused_and_lost_turns_are_told_apart(w: World) -> None:
    """Before it begins a turn is refused, later it is lost; a withdrawn one is neither."""
    w.stage.start_errors = [Misconfigured("none", cause="binary-missing")]
    await fails(await w.send())
    first, behind = await w.send("a"), await w.send("b")
    with pytest.raises(SessionBusy):
        await w.send("c")
    actor = await w.running(actors=2)
    await w.sessions.interrupt(turn_of(first).key, turn_of(behind).turn_id)
    await fails(behind)
    actor.die()
    await fails(first)
    counted = told(w)
    assert (counted["turns_refused"], counted["turns_lost"]) == (2, 1)
    assert counted["starts_failed"] == 1


@story(slots=1)
async def test_a_process_that_makes_room_is_retired(w: World) -> None:
    """So is one that idles too long, but not one whose session is closed."""
    await w.turn(session="a")
    await w.turn(session="b")
    assert told(w)["processes_retired"] == 1
    await w.sessions.close(SessionKey("acme", "b"))
    assert told(w)["processes_retired"] == 1


@story()
async def test_a_process_without_proof_is_killed(w: World) -> None:
    """It did not end by itself, and it is not retired."""
    stream = await w.send()
    actor = await w.running()
    await w.sessions.interrupt(turn_of(stream).key, turn_of(stream).turn_id)
    actor.proofs[0].set_result(False)
    await fails(stream)
    counted = told(w)
    assert counted["processes_killed"] == counted["turns_lost"] == 1
    assert "processes_died" not in counted
    assert "processes_retired" not in counted


@story()
async def test_a_process_that_breaks_the_protocol_is_killed(w: World) -> None:
    """It is counted with those that nobody can trust."""
    stream = await w.send()
    (await w.running()).listener.on_broken(Broken.UNPARSABLE)
    await fails(stream)
    assert told(w)["processes_killed"] == 1


@story(slots=2)
async def test_stored_sessions_are_counted_as_they_come_and_go(w: World) -> None:
    """A session is suspended once its process is gone, and no longer when it is closed."""
    for name in "abc":
        await w.turn(session=name)
    await w.settled()
    assert look(w).suspended == 1
    assert await w.sessions.close(SessionKey("acme", "a"))
    assert look(w).suspended == 0
    assert told(w)["sessions"] == 2
    await w.turn(session="b")
    assert look(w).suspended == 0


@story()
async def test_a_session_that_was_never_created_is_not_counted(w: World) -> None:
    """Its only turn was refused, so the store has nothing of it."""
    w.stage.start_errors = [Misconfigured("none", cause="binary-missing")]
    await fails(await w.send())
    assert (look(w).suspended, look(w).counters.sessions) == (0, 0)


@story(stage=Company())
async def test_a_session_whose_only_turn_was_undone_is_not_counted(w: World) -> None:
    """A turn that ends while another one is recorded and not written proves no session."""
    first, second = await w.send("x", turn_id="t"), await w.send("y", turn_id="u")
    key = turn_of(first).key
    while (key, "t") not in w.shelf.turns:
        await passes(0.001)
    w.stage.last.die()
    await w.sessions.interrupt(key, "u")
    await w.sessions.interrupt(key, "t")
    await fails(second)
    await fails(first)
    assert (w.shelf.sessions, look(w).counters.sessions) == ({}, 0)


@story()
async def test_a_session_is_counted_once_by_what_its_process_does(w: World) -> None:
    """One runs, one waits warm, one has no process. Gauges and rows tell the same memory."""
    await w.turn(session="gone")
    w.stage.last.die()
    await passes(1)
    await w.turn(session="warm")
    stream = await w.send(session="busy")
    actor = await w.running(actors=3)
    memory = {process.handle.pid: 7 + n for n, process in enumerate(w.pool)}
    snapshot = snapshots.take(w.pool, w.sessions, memory, 0.0)
    gauges = snapshots.gauges_of(snapshot, ("default", "lean"), 2, 60.0, audit_down=True)
    assert gauges.sessions == {"running": 1, "warm": 1, "suspended": 1}
    assert gauges.running == {"default": 1, "lean": 0}
    for row in snapshot.processes:
        assert gauges.memory[row.state.value] == row.resident > 0
        assert gauges.processes[row.state.value] == 1
    assert gauges.processes.keys() == {state.value for state in ProcessState}
    assert (gauges.removing, gauges.certificate, gauges.audit_down) == (2, 60.0, True)
    actor.answer()
    await collect(stream)


def test_gauges_tell_the_turns_that_wait() -> None:
    """By profile, in all pools, and for how long the first has waited."""
    lean = PoolKey("blue", "lean")
    snapshot = taken(waiting=(Waiting(ACME, 99.0), Waiting(BLUE, 99.5), Waiting(lean, 97.5)))
    gauges = snapshots.gauges_of(snapshot, ("default", "lean"), 0, None, audit_down=False)
    assert gauges.waiting == {"default": 2, "lean": 1}
    assert gauges.max_wait == 2.5
    gauges = snapshots.gauges_of(taken(), ("default",), 0, None, audit_down=False)
    assert (gauges.waiting, gauges.max_wait) == ({"default": 0}, 0.0)
