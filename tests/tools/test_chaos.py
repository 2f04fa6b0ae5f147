"""The short form of `make chaos`, and that each of its counts can be broken."""

import asyncio
from pathlib import Path

import pytest
from chaos.plan import SHARES, Fate, drawn
from chaos.run import chaos, tally_of
from chaos.tally import NEVER

SEED = 20


def test_nothing_is_mixed_up_and_nothing_is_left(directory: Path) -> None:
    """While processes die in every state, stop, lie and do not start, and callers leave."""
    tally = asyncio.run(chaos(directory, 60, SEED, tenants=4, sessions=8, slots=6))
    assert not tally.broken, tally.report()
    assert tally.ends["finished"] > 10
    assert tally.killed.total() > 2


def test_a_seed_draws_the_same_turns() -> None:
    """Whatever the order; and every fate has its share."""
    every = [drawn(SEED, number, 16, 64) for number in range(5000)]
    assert [drawn(SEED, number, 16, 64) for number in reversed(range(5000))] == every[::-1]
    assert len({(plan.tenant, plan.session) for plan in every}) == 64
    for name, share in SHARES.items():
        found = sum(plan.fate is Fate(name) for plan in every) / len(every)
        assert share / 2 < found < share * 2


@pytest.mark.parametrize("name", NEVER)
def test_what_must_not_happen_breaks_the_run(name: str) -> None:
    """Once is enough; so do turns and kills that are missing."""
    tally = tally_of(700)
    tally.killed.update(dict.fromkeys(tally.states, tally.kills))
    tally.count("turns", more=700)
    assert not tally.broken
    tally.count(name, "example")
    assert tally.broken == [name]
    assert tally.report()["examples"] == [f"{name}: example"]
    tally.killed["leased"] -= 1
    assert "kills while leased" in tally.broken
