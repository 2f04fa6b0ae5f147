"""What the model's API has said of when it takes requests again, and whom it concerns."""

import pytest
from support.core_runner import collect, fails, story
from support.world import World, passes, text_of

from samovard.core.errors import QuotaExceeded
from samovard.core.events import Outcome, TurnFinished
from samovard.core.sessions.conversation import SessionRules
from samovard.core.sessions.rate_limits import RateLimits


async def limited(w: World, status: int = 429, delay: float | None = 100.0) -> None:
    """Runs a turn that the model's API refused."""
    stream = await w.send("x")
    actor = await w.running()
    failed = TurnFinished(
        Outcome.FAILED, upstream_status=status, upstream_retry_delay=delay, errors=("no",)
    )
    actor.listener.on_finished(failed)
    actor.listener.on_quiet()
    await collect(stream)


@story(profile=SessionRules(model="haiku", models=("opus",)))
async def test_a_limit_is_one_tenants_and_one_models(w: World) -> None:
    """Its sessions with that model are refused until then, old ones and new ones; others not."""
    await limited(w)
    for session in ("default", "new"):
        with pytest.raises(QuotaExceeded) as refused:
            await w.send("y", session=session)
        assert refused.value.retry_after == pytest.approx(100, abs=1)
    assert text_of(await w.turn("z", tenant="blue")) == "z"
    await passes(100)
    assert text_of(await w.turn("on")) == "on"


@story()
async def test_a_turn_that_waits_is_refused_as_well(w: World) -> None:
    """It would only meet the limit: its prompt is not written, and nothing is left of it."""
    first = await w.send("x")
    actor = await w.running()
    second = await w.send("y", turn_id="second")
    failed = TurnFinished(Outcome.FAILED, upstream_status=429, upstream_retry_delay=100.0)
    actor.listener.on_finished(failed)
    actor.listener.on_quiet()
    await collect(first)
    assert isinstance(await fails(second), QuotaExceeded)
    assert len(actor.prompts) == 1
    assert [turn_id for _, turn_id in w.shelf.turns] == ["turn-1"]


@pytest.mark.parametrize(("status", "delay"), [(529, 100.0), (429, None)])
def test_what_has_no_end_that_is_known_refuses_nothing(status: int, delay: float | None) -> None:
    """Only a limit with a time does: whatever else failed may work the next time."""

    @story()
    async def test(w: World) -> None:
        await limited(w, status, delay)
        assert text_of(await w.turn("on")) == "on"

    test()


def test_limits_that_are_over_are_forgotten() -> None:
    """What is known does not pile up."""
    now = [0.0]
    upstream = RateLimits(lambda: now[0])
    for number in range(100):
        upstream.limited(str(number), "haiku", 10.0)
        now[0] += 5
    assert repr(upstream) == "<RateLimits limits=2>"
