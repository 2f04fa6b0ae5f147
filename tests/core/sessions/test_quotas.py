"""What a tenant may do in a minute and spend in a day, and when it may again."""

import pytest
from support.core_runner import collect, fails, finished, story
from support.world import Actor, World, passes, turn_of

from samovard.core.errors import QuotaExceeded, SessionBusy
from samovard.core.events import Outcome, TurnFinished, Usage
from samovard.core.sessions.quotas import DAY, Quota, Quotas
from samovard.core.turn.follower import Follower
from samovard.core.turn.turn import Phase


def three(tenant: str) -> Quota:
    """Return the quota of three turns a minute; `free` has none."""
    return Quota() if tenant == "free" else Quota(turns_per_minute=3)


def one_dollar(tenant: str) -> Quota:
    """Return the quota of a dollar a day; `free` has none."""
    return Quota() if tenant == "free" else Quota(cost_per_day=1.0)


def report(actor: Actor, usd: float, outcome: Outcome = Outcome.COMPLETED) -> None:
    """End a turn that has cost so much."""
    actor.listener.on_finished(TurnFinished(outcome, usage=Usage(cost_usd=usd)))
    actor.listener.on_quiet()


async def runs(w: World, stream: Follower) -> Actor:
    """Return the process of a turn once it has its prompt."""
    while turn_of(stream).phase is not Phase.RUNNING:
        await passes(0.1)
    process = w.pool.process_of(turn_of(stream).key)
    assert process is not None
    assert isinstance(process.handle, Actor)
    return process.handle


async def costing(w: World, usd: float, session: str = "default") -> None:
    """Run a turn that costs so much."""
    stream = await w.send(session=session)
    report(await runs(w, stream), usd)
    await collect(stream)


async def refused(w: World, session: str = "default") -> QuotaExceeded:
    with pytest.raises(QuotaExceeded) as raised:
        await w.send(session=session)
    return raised.value


@story(slots=8, quota=three)
async def test_as_many_turns_begin_at_once_as_in_a_minute(w: World) -> None:
    """The next one may come once a third of the minute is over; other tenants come and go."""
    w.stage.quick = "done"
    for number in range(3):
        await w.turn(session=f"s{number}")
    error = await refused(w, "s0")
    assert (error.cause, error.subject) == ("turns-per-minute", "tenant:acme")
    assert error.retry_after == pytest.approx(20, abs=5)
    for _ in range(5):
        await w.turn(tenant="free")
    await passes(error.retry_after or 0.0)
    await w.turn(session="s0")
    assert (await refused(w, "s0")).retry_after == pytest.approx(20, abs=5)
    await passes(60.0)
    for _ in range(3):
        await w.turn(session="s0")
    await refused(w, "s0")


@story(quota=three)
async def test_only_turns_that_begin_are_counted(w: World) -> None:
    """Neither what is refused for something else, nor a turn that is sent again."""
    running = await w.send(turn_id="a")
    again = await w.send(turn_id="a")
    waiting = await w.send("x", turn_id="b")
    for number in range(5):
        with pytest.raises(SessionBusy):
            await w.send("y", turn_id=f"c{number}")
    for stream in (running, waiting):
        (await runs(w, stream)).answer()
        await collect(stream)
    await collect(again)
    await w.turn("z")
    await refused(w)


@story(quota=three)
async def test_a_session_whose_first_turn_exceeds_the_quota_is_not_made(w: World) -> None:
    """Its name is as free as before."""
    for number in range(3):
        await w.turn(session=f"s{number}")
    held = len(w.sessions)
    await refused(w, "new")
    assert len(w.sessions) == held


@story(quota=one_dollar)
async def test_no_turn_begins_once_the_day_has_cost_what_it_may(w: World) -> None:
    """Until the day in UTC is over."""
    await costing(w, 0.6)
    await costing(w, 0.4)
    error = await refused(w)
    assert (error.cause, error.subject) == ("cost-per-day", "tenant:acme")
    assert error.retry_after == pytest.approx(DAY - w.wall() % DAY, abs=10)
    await w.turn(tenant="free")
    w.wall.shift += error.retry_after or 0.0
    await costing(w, 0.9)
    await costing(w, 0.2)
    await refused(w)


@story(quota=one_dollar, spent={"acme": 0.9})
async def test_what_was_spent_before_the_start_counts(w: World) -> None:
    """A restart is no new day."""
    await costing(w, 0.1)
    await refused(w)


@story(quota=one_dollar)
async def test_a_turn_that_passes_the_bound_is_interrupted(w: World) -> None:
    """Its outcome is that a limit was reached."""
    await costing(w, 0.75)
    stream = await w.send()
    actor = await runs(w, stream)
    assert actor.launch.metered
    actor.listener.on_cost(0.25)
    assert not actor.proofs
    actor.listener.on_cost(0.26)
    assert len(actor.proofs) == 1
    report(actor, 0.26, Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(stream)).outcome is Outcome.LIMIT_REACHED
    await refused(w)


@story(quota=one_dollar)
async def test_turns_that_run_at_once_share_the_day(w: World) -> None:
    """The one that passes the bound is interrupted, and no other begins meanwhile."""
    one, other = await w.send(session="a"), await w.send(session="b")
    first, second = await runs(w, one), await runs(w, other)
    first.listener.on_cost(0.5)
    second.listener.on_cost(0.25)
    first.listener.on_cost(0.75)
    assert not first.proofs + second.proofs
    await refused(w, "c")
    second.listener.on_cost(0.3)
    assert (len(first.proofs), len(second.proofs)) == (0, 1)
    second.proofs[0].set_result(True)
    report(second, 0.3, Outcome.INTERRUPTED)
    report(first, 0.75)
    assert finished(await collect(one)).outcome is Outcome.COMPLETED
    assert finished(await collect(other)).outcome is Outcome.LIMIT_REACHED
    assert turn_of(other).limited


@story(quota=one_dollar)
async def test_a_turn_that_waits_does_not_begin_beyond_the_bound(w: World) -> None:
    """Its prompt is not written, and nothing is left of it."""
    first = await w.send("x")
    actor = await runs(w, first)
    second = await w.send("y", turn_id="second")
    report(actor, 1.5)
    await collect(first)
    assert isinstance(await fails(second), QuotaExceeded)
    assert len(actor.prompts) == 1
    assert [turn_id for _, turn_id in w.shelf.turns] == ["turn-1"]


@story(quota=one_dollar)
async def test_a_lost_turn_counts_what_it_is_known_to_have_cost(w: World) -> None:
    """Not twice, and not nothing."""
    stream = await w.send()
    actor = await runs(w, stream)
    actor.listener.on_cost(0.9)
    actor.spent = Usage(cost_usd=0.95)
    actor.die()
    await fails(stream)
    await costing(w, 0.04)
    await costing(w, 0.02)
    await refused(w)


@story(quota=three)
async def test_only_tenants_with_a_bound_on_cost_are_metered(w: World) -> None:
    """It costs a question to the agent for each answer of the model."""
    stream = await w.send()
    actor = await runs(w, stream)
    assert not actor.launch.metered
    actor.answer()
    await collect(stream)


def test_a_day_ends_with_a_turn_that_ends_in_the_next() -> None:
    """What it costs is of the day on which it ends, as in the ledger."""
    now = [DAY - 1.0]
    quotas = Quotas(lambda: now[0], lambda: now[0], one_dollar, {"acme": 0.9})
    budget = quotas.budget("acme")
    assert budget.costs(0.05) == ""
    now[0] += 2.0
    assert quotas.cost("acme") == pytest.approx(0.05)
    budget.ended(0.3)
    budget.ended(0.3)
    assert quotas.cost("acme") == pytest.approx(0.3)


def test_what_a_tenant_has_again_is_forgotten() -> None:
    """What is known of tenants does not pile up."""
    now = [0.0]
    quotas = Quotas(lambda: now[0], lambda: now[0], three)
    for number in range(100):
        quotas.take(f"t{number}")
        now[0] += 15.0
    assert repr(quotas).startswith("<Quotas recent=2 ")


def test_a_tenant_that_was_deleted_begins_anew() -> None:
    """Nothing of it is known."""
    quotas = Quotas(lambda: 0.0, lambda: 0.0, one_dollar, {"acme": 2.0})
    with pytest.raises(QuotaExceeded):
        quotas.check("acme")
    quotas.forget("acme")
    quotas.check("acme")
