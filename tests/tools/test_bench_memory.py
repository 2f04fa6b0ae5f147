"""Memory of messages is measured rightly. Not how much it is: a few messages show little."""

from dataclasses import replace
from pathlib import Path

from bench import memory
from bench.run import QUICK, Run


def test_messages_are_sent_and_memory_is_looked_at(directory: Path) -> None:
    """Turns run, calls without a credential are refused, and each figure has its bound."""
    sizes = replace(QUICK, messages=2)
    part = memory.measured(Run(directory, Path(), "", sizes, lambda what: None))
    assert part.wrong == 0
    assert [(row.name, row.cells[-1]) for row in part.rows] == [
        ("of a tenant", "4 OK"),  # two rounds
        ("without a credential", "2 UNAUTHENTICATED"),
    ]
    added, ratio, unread = part.figures
    assert (added.most, ratio.most, unread.most) == (300, 1.1, 16)
    # A message is there at least once while its turn waits: it is the right process.
    assert added.value >= 8 > unread.value >= 0
    assert ratio.value > 0
