"""What there is of turns, processes and sessions, counted on a clock that jumps."""

from stories import collect, story
from world import World, passes

from samovard.core.operator.levels import levels_of


@story()
async def test_a_session_is_counted_once_by_what_its_process_does(w: World) -> None:
    """One runs, one waits warm, one has no process."""
    await w.turn(session="gone")
    w.stage.last.die()
    await passes(1)
    await w.turn(session="warm")
    stream = await w.send(session="busy")
    actor = await w.running(actors=3)
    levels = levels_of(w.pool, w.sessions, ("default",), lambda pid: 7, 0, None, audit_down=False)
    assert levels.sessions == {"running": 1, "warm": 1, "suspended": 1}
    assert levels.running == {"default": 1}
    assert (levels.memory["idle"], levels.memory["running"]) == (7, 7)
    actor.answer()
    await collect(stream)
