"""The short form of `make races`."""

import asyncio
from pathlib import Path

import pytest
from races.run import races

SEED = 20


@pytest.mark.parametrize(("agent", "count"), [("fake", 240), ("real", 12)])
def test_an_interrupt_and_the_next_turn_never_mix(directory: Path, agent: str, count: int) -> None:
    """Whenever a turn is stopped and the next one sent, no word is in the wrong stream, each
    stream has one end, each answer is right, and an obedient process is kept."""
    counters = asyncio.run(races(directory, count, SEED, fake=agent == "fake"))
    assert not counters.broken, counters.report()
    assert counters.counts["interrupted"] + counters.counts["cancelled"] > count // 4
