"""Replacing a tenant's processes, in a core without any."""

from support.core_runner import collect, started, story
from support.world import World, passes, turn_of

from samovard.core.events import StartMode
from samovard.core.pool.states import ProcessState
from samovard.core.records import SessionKey


async def stopped(w: World) -> None:
    """Lets what was told to stop be gone."""
    await passes(2 * w.stage.stop_time)


@story()
async def test_idle_processes_are_stopped_at_once(w: World) -> None:
    """The session's next turn resumes on another one."""
    await w.turn()
    assert w.pool.drain("acme", "") == (1, 0)
    await stopped(w)
    assert len(w.pool) == 0
    assert started(await w.turn()).start_mode is StartMode.RESUMED


@story()
async def test_a_leased_process_is_stopped_when_its_turn_ends(w: World) -> None:
    """The turn itself feels nothing, and the one behind it resumes on another process."""
    stream = await w.send("one")
    actor = await w.running()
    behind = await w.send("two")
    assert w.pool.drain("acme", "") == (0, 1)
    await passes(10.0)
    assert not actor.stopped
    actor.answer("one")
    await collect(stream)
    (await w.running(actors=2)).answer("two")
    assert started(await collect(behind)).start_mode is StartMode.RESUMED
    assert actor.stopped


@story()
async def test_a_starting_process_is_replaced_and_its_turn_waits_on(w: World) -> None:
    """It may have been started with what is to be replaced; its turn has another process."""
    stream = await w.send()
    await passes(w.stage.start_time / 2)
    assert w.pool.drain("acme", "") == (1, 0)
    (await w.running(actors=2)).answer()
    assert started(await collect(stream)).start_mode is StartMode.COLD
    assert w.stage.created[0].stopped


@story()
async def test_an_interrupted_process_is_replaced_even_with_proof(w: World) -> None:
    """Proof makes it quiet, not new."""
    stream = await w.send()
    actor = await w.running()
    await w.sessions.interrupt(turn_of(stream).key, turn_of(stream).turn_id)
    assert w.pool.drain("acme", "") == (0, 1)
    actor.finish()
    actor.proofs[0].set_result(True)
    await collect(stream)
    await stopped(w)
    assert actor.stopped


@story()
async def test_another_tenants_and_another_profiles_processes_stay(w: World) -> None:
    """Who is not named is not touched."""
    await w.turn(tenant="acme")
    await w.turn(tenant="blue")
    assert w.pool.drain("acme", "other") == (0, 0)
    assert w.pool.drain("nobody", "") == (0, 0)
    assert w.pool.drain("acme", "default") == (1, 0)
    await stopped(w)
    assert [process.key.tenant for process in w.pool] == ["blue"]


@story()
async def test_replacing_twice_equals_once(w: World) -> None:
    """What stops already is not told again; what is marked is still to be stopped."""
    await w.turn(session="idle")
    stream = await w.send(session="busy")
    actor = await w.running(actors=2)
    assert w.pool.drain("acme", "") == (1, 1)
    assert w.pool.drain("acme", "") == (0, 1)
    actor.answer()
    await collect(stream)
    await stopped(w)
    assert (len(w.pool), w.pool.drain("acme", "")) == (0, (0, 0))
    assert len(w.stage.created) == 2


@story()
async def test_a_new_process_is_not_to_be_replaced(w: World) -> None:
    """The order was for the processes of its moment."""
    await w.turn()
    w.pool.drain("acme", "")
    await w.turn()
    await w.settled()
    process = w.pool.process_of(SessionKey("acme", "default"))
    assert process is not None
    assert process.state is ProcessState.IDLE
    assert process.counters.processes_retired == 1
    assert process.counters.processes_started == 2


@story()
async def test_what_is_on_its_way_out_is_left_alone(w: World) -> None:
    """Nobody can tell it anything more."""
    await w.turn()
    (process,) = w.pool
    w.pool.stop(process, "closed")
    assert w.pool.drain("acme", "") == (0, 0)


@story()
async def test_everybodys_processes_can_be_replaced(w: World) -> None:
    """Of each tenant and profile, for a reason that is told."""
    for tenant in ("acme", "blue"):
        await w.turn(tenant=tenant)
    assert w.pool.drain(None, "", "outdated") == (2, 0)
    moved = [line for line in w.logs if line["event"] == "process.moved"]
    assert [line["cause"] for line in moved if line["to"] == "stopping"] == ["outdated"] * 2
    await stopped(w)
    assert len(w.pool) == 0
