"""Bounds on turns, on a clock that jumps and without any process."""

import pytest
from support.core_runner import collect, finished, started, story
from support.world import Actor, World, passes, turn_of, until

from samovard.core.events import Event, Notice, Outcome, StartMode
from samovard.core.process import Doing
from samovard.core.sessions.conversation import SessionRules
from samovard.core.turn.follower import Follower
from samovard.core.turn.limits import Limits


@pytest.mark.parametrize(
    ("asked", "outer", "both"),
    [
        (Limits(), Limits(), Limits()),
        (Limits(timeout=3.0), Limits(), Limits(timeout=3.0)),
        (Limits(), Limits(timeout=3.0), Limits(timeout=3.0)),
        (Limits(timeout=9.0, steps=2), Limits(timeout=3.0, steps=5), Limits(3.0, 2)),
    ],
)
def test_the_lower_bound_holds(asked: Limits, outer: Limits, both: Limits) -> None:
    """An unset bound is the outer one, and none is above it."""
    assert asked.within(outer) == both


def notices(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, Notice)]


async def stopped(actor: Actor, stream: Follower) -> list[Event]:
    """Lets an agent that was told to stop do so, and gives all events."""
    await until(lambda: actor.proofs)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    return await collect(stream)


@story()
async def test_a_turn_takes_no_more_steps_than_it_may(w: World) -> None:
    """The step beyond the bound interrupts the turn, and a notice says which bound it was."""
    stream = await w.send("x", steps=2)
    actor = await w.running()
    for steps in (1, 2):
        actor.does(Doing.TOOL, steps=steps)
        assert not actor.proofs
    actor.does(Doing.MODEL, steps=3)
    events = await stopped(actor, stream)
    assert finished(events).outcome is Outcome.LIMIT_REACHED
    assert notices(events) == ["the turn reached its bound of 2 steps"]
    assert started(await w.turn()).start_mode is StartMode.WARM


@pytest.mark.parametrize("steps", [None, 3, 9])
def test_the_profiles_own_steps_are_the_agents_to_count(steps: int | None) -> None:
    """A bound that is not below the profile's is left to the agent, which keeps it exactly."""

    @story(profile=SessionRules(max_agent_steps=3))
    async def told(w: World) -> None:
        """Begins more steps than the profile allows."""
        stream = await w.send("x", steps=steps)
        actor = await w.running()
        actor.does(Doing.MODEL, steps=4)
        actor.finish(outcome=Outcome.LIMIT_REACHED)
        actor.listener.on_quiet()
        assert finished(await collect(stream)).outcome is Outcome.LIMIT_REACHED
        assert not actor.proofs

    told()


@story()
async def test_whoever_stops_a_turn_first_says_why(w: World) -> None:
    """A bound that is reached behind an `Interrupt` does not change the outcome."""
    stream = await w.send("x", steps=1, timeout=1.0)
    actor = await w.running()
    assert await w.sessions.interrupt(turn_of(stream).key, turn_of(stream).turn_id)
    actor.does(Doing.MODEL, steps=2)
    await passes(2.0)
    events = await stopped(actor, stream)
    assert finished(events).outcome is Outcome.INTERRUPTED
    assert notices(events) == []
    assert len(actor.proofs) == 1


@story()
async def test_a_bound_that_came_first_stays_the_reason(w: World) -> None:
    """An `Interrupt` of a turn that has reached its bound changes nothing."""
    stream = await w.send("x", timeout=1.5)
    actor = await w.running()
    await passes(2.0)
    assert await w.sessions.interrupt(turn_of(stream).key, turn_of(stream).turn_id)
    events = await stopped(actor, stream)
    assert finished(events).outcome is Outcome.LIMIT_REACHED
    assert notices(events) == ["the turn reached its bound of 1.5 s"]


@story(profile=SessionRules(max_cost_usd=0.5))
async def test_a_turn_costs_no_more_than_it_may(w: World) -> None:
    """The answer that reaches the bound is the last one; the process is told to count."""
    stream = await w.send("x")
    actor = await w.running()
    assert actor.launch.metered
    actor.listener.on_cost(0.49)
    assert not actor.proofs
    actor.listener.on_cost(0.5)
    events = await stopped(actor, stream)
    assert finished(events).outcome is Outcome.LIMIT_REACHED
    assert notices(events) == ["the turn reached its bound of 0.5 US dollars"]


@story()
async def test_without_a_bound_nothing_is_counted(w: World) -> None:
    """Asking the agent what it spent takes time: only profiles with a bound do."""
    await w.turn()
    assert not w.stage.last.launch.metered
