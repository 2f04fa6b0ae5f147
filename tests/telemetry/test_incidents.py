"""What goes wrong with a process is told once, with its turn, and counted."""

import re
from pathlib import Path
from typing import Any

from support.core_runner import collect, fails, story
from support.world import Stage, World, passes, turn_of, until

from samovard.core.errors import NoProcess
from samovard.core.events import Outcome, TurnFinished
from samovard.core.process import Broken

PAGE = Path(__file__).parents[2] / "docs" / "observability.md"
IDS = {"event", "log_level", "process_id", "turn", "trace_id", "span_id"}


def documented(event: str) -> set[str]:
    """Gives the fields that the page has for an incident."""
    (row,) = (row for row in PAGE.read_text().splitlines() if row.startswith(f"| `{event}` | "))
    return set(re.findall(r"`(\w+)`", row.split("|")[4]))


def told(w: World, event: str) -> dict[str, Any]:
    """Gives the only line of an incident, which was counted once; the page has its fields."""
    (line,) = (line for line in w.logs if line["event"] == event)
    assert w.noted.incidents[event] == 1
    assert set(line) - IDS == documented(event)
    return dict(line)


@story()
async def test_a_foreign_frame_is_a_matter_of_security(w: World) -> None:
    """One line, critical, that names tenant, session, process and turn; the frame is counted."""
    stream = await w.send("x", turn_id="t", tenant="acme", session="s")
    actor = await w.running()
    actor.listener.on_broken(Broken.FOREIGN)
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
    (await w.running()).listener.on_broken(Broken.UNPARSABLE)
    await fails(stream)
    line = told(w, "frame.unparsable")
    assert set(line) == {"event", "log_level", "process_id", "turn"}
    assert not w.noted.dropped


@story()
async def test_unasked_frames_are_all_counted_and_told_once(w: World) -> None:
    """However much a process says unasked, one line tells it until it is quiet again."""
    await w.turn()
    listener = w.stage.last.listener
    listener.on_unsolicited(3)
    listener.on_unsolicited(2)
    assert told(w, "frame.unsolicited")["state"] == "idle"
    listener.on_quiet()
    listener.on_unsolicited(1)
    assert w.noted.incidents["frame.unsolicited"] == 2
    assert w.noted.dropped == {"unsolicited": 6}
    listener.on_quiet()


@story()
async def test_lines_that_are_no_frames_are_only_counted(w: World) -> None:
    """Noise is no incident."""
    stream = await w.send("x")
    actor = await w.running()
    actor.listener.on_noise(4)
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


@story()
async def test_a_turn_that_stalls_tells_what_it_waits_for(w: World) -> None:
    """The phase of the turn, and what the kernel says of its process."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    await fails(stream)
    line = told(w, "turn.stalled")
    assert (line["turn"], line["process_id"]) == ("t", actor.process_id)


@story()
async def test_a_start_that_fails_tells_for_which_turn(w: World) -> None:
    """The turn that needed it, though no process ever served it."""
    w.stage.start_errors = [NoProcess("no", cause="start-failed", retry_after=1.0)]
    await fails(await w.send("x", turn_id="t"))
    assert told(w, "start.failed")["turn"] == "t"


@story(stage=Stage(undead=True))
async def test_a_process_that_survives_is_in_quarantine_once(w: World) -> None:
    """However often it is killed again."""
    await w.turn()
    w.pool.stop(next(iter(w.pool)), "closed")
    await passes(60.0)
    assert told(w, "process.quarantined")["log_level"] == "error"
    w.pool.abandon()


@story()
async def test_an_upstream_that_fails_is_told_with_its_status(w: World) -> None:
    """The turn is reported all the same."""
    stream = await w.send("x", turn_id="t")
    actor = await w.running()
    failed = TurnFinished(Outcome.FAILED, upstream_status=529)
    actor.listener.on_finished(failed)
    actor.listener.on_quiet()
    await collect(stream)
    assert told(w, "upstream.failed")["status"] == 529


@story()
async def test_a_lease_that_is_not_used_is_counted(w: World) -> None:
    """A turn that is given up between its process and its prompt."""
    await w.turn()
    w.shelf.slow = 0.2
    stream = await w.send("x", turn_id="t")
    await passes(0.1)
    await w.sessions.interrupt(turn_of(stream).key, "t")
    await fails(stream)
    assert told(w, "lease.unused")["turn"] == "t"


@story()
async def test_what_the_store_cannot_take_is_counted(w: World) -> None:
    """Whose session it is of."""
    stream = await w.send("x")
    actor = await w.running()
    w.shelf.down = True
    actor.answer("x")
    await fails(stream)
    w.shelf.down = False
    await passes(5.0)
    line = told(w, "store.owed")
    assert (line["tenant"], line["session"]) == ("acme", "default")
