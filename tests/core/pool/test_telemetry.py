"""What the core tells of a turn to what traces and counts."""

from support.core_runner import collect, story
from support.world import World, until

from samovard.core.pool import telemetry
from samovard.core.records import SessionKey


@story()
async def test_a_turn_waits_for_its_session_or_for_a_slot(w: World) -> None:
    """For its session behind other turns of it, and while its process has not settled."""
    assert telemetry.obstacle(None, others=True) == "session_busy"
    assert telemetry.obstacle(None, others=False) == "no_slot"
    stream = await w.send()
    await until(lambda: w.stage.created)
    starting = w.pool.process_of(SessionKey("acme", "default"))
    assert telemetry.obstacle(starting, others=False) == "no_slot"
    actor = await w.running()
    assert telemetry.obstacle(starting, others=False) == "session_busy"
    actor.answer()
    await collect(stream)
