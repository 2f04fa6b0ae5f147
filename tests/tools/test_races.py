"""The short form of `make races`."""

import asyncio
import subprocess
import sys
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


def test_a_program_outside_of_a_test_run_leaves_nothing(tmp_path: Path) -> None:
    """What it keeps for all its services goes with it, and is not in the directory it runs in."""
    code = "from support import shared; (shared.place() / 'x').touch(); print(shared.place())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not Path(done.stdout.strip()).exists()
    assert [*tmp_path.iterdir()] == []
