"""The end of a turn that no course takes any more."""

import gc

from support.core_runner import collect, story
from support.world import World, turn_of

from samovard.core.errors import TurnWithdrawn
from samovard.core.turn.turn import Turn


@story()
async def test_a_turn_that_nobody_runs_any_more_may_be_lost(w: World) -> None:
    """That its report never comes is no fault that asyncio tells of."""
    stream = await w.send()
    actor = await w.running()
    turn = turn_of(stream)
    early = Turn(
        turn.key,
        turn.prompt,
        turn.digest,
        owner=turn._owner,
        facts=turn.facts,
        retention=w.retention,
    )
    early.lose(TurnWithdrawn())
    del early
    gc.collect()
    actor.answer()
    await collect(stream)
