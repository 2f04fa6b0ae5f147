"""What goes wrong with a process is told once, with its turn, and counted."""

from typing import Any

from stories import collect, fails, story
from world import World, passes, until

from samovard.core.events import Outcome
from samovard.core.process import Broken


def told(w: World, event: str) -> dict[str, Any]:
    """Gives the only line of an incident, which was counted once."""
    (line,) = (line for line in w.logs if line["event"] == event)
    assert w.noted.incidents[event] == 1
    return dict(line)


@story()
async def test_a_foreign_frame_is_a_matter_of_security(w: World) -> None:
    """One line, critical, that names tenant, session, process and turn; the frame is counted."""
    stream = await w.send("x", turn_id="t", tenant="acme", session="s")
    actor = await w.running()
    actor.observer.on_broken(Broken.FOREIGN)
    await fails(stream)
    line = told(w, "frame.foreign")
    assert (line["log_level"], line["security"]) == ("critical", True)
    assert (line["tenant"], line["session"], line["turn"]) == ("acme", "s", "t")
    assert line["process_id"] == actor.process_id
    assert w.noted.dropped == {"foreign": 1}


@story()
async def test_other_broken_lines_are_no_matter_of_security(w: World) -> None:
    """An unreadable line is an error that says whose it was, and nothing of what it held."""
    stream = await w.send("x", turn_id="t")
    (await w.running()).observer.on_broken(Broken.UNPARSABLE)
    await fails(stream)
    line = told(w, "frame.unparsable")
    assert set(line) == {"event", "log_level", "process_id", "turn"}
    assert not w.noted.dropped


@story()
async def test_unasked_frames_are_all_counted_and_told_once(w: World) -> None:
    """However much a process says unasked, one line tells it until it is quiet again."""
    await w.turn()
    observer = w.stage.last.observer
    observer.on_unsolicited(3)
    observer.on_unsolicited(2)
    assert told(w, "frame.unsolicited")["state"] == "idle"
    observer.on_quiet()
    observer.on_unsolicited(1)
    assert w.noted.incidents["frame.unsolicited"] == 2
    assert w.noted.dropped == {"unsolicited": 6}
    observer.on_quiet()


@story()
async def test_lines_that_are_no_frames_are_only_counted(w: World) -> None:
    """Noise is no incident."""
    stream = await w.send("x")
    actor = await w.running()
    actor.observer.on_noise(4)
    actor.answer("x")
    await collect(stream)
    assert w.noted.dropped == {"noise": 4}
    assert not w.noted.incidents


@story()
async def test_a_death_names_the_turn_that_it_cut(w: World) -> None:
    """The process, its state, its turn, and that it left a line unfinished."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    actor.die(9, cut=17)
    await fails(stream)
    line = told(w, "process.exited")
    assert (line["turn"], line["state"], line["exit"]) == ("t", "running", "signal 9")
    assert told(w, "frame.truncated")["size"] == 17


@story()
async def test_an_idle_process_is_of_no_turn(w: World) -> None:
    """What happens to a process between its turns is not told of the last one."""
    await w.turn()
    w.stage.last.die()
    assert "turn" not in told(w, "process.exited")


@story()
async def test_an_interrupt_tells_how_long_its_proof_took(w: World) -> None:
    """The line has the turn, and the milliseconds until the agent proved quiet."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    await stream.__aexit__(None, None, None)
    await until(lambda: actor.proofs)
    await passes(0.03)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    await until(lambda: w.noted.incidents["turn.interrupted"])
    line = told(w, "turn.interrupted")
    assert (line["turn"], line["proof_ms"]) == ("t", 30.0)


@story(slots=1)
async def test_who_gives_up_waiting_is_counted(w: World) -> None:
    """A turn that leaves the queue is an incident, and its refusal another."""
    first = await w.send("x", session="a")
    actor = await w.running()
    second = await w.send("y", session="b")
    await until(lambda: w.pool.waiting)
    await second.__aexit__(None, None, None)
    await until(lambda: not w.pool.waiting)
    actor.answer("x")
    await collect(first)
    assert told(w, "waiter.withdrawn")["reason"] == "no_slot"
