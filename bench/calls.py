"""The number of the service's functions that a warm turn calls, and the crossings between files."""

import json
import statistics
from collections import Counter
from typing import Any

from bench.contenders import Samovar
from bench.counted import COUNTED, FILE
from bench.figures import Figure, Part, Row
from bench.run import Run

#: The counts, each with its bound and its name in a table.
KINDS = {
    "calls": ("calls of a warm turn", 450),
    "crossings": ("of them from another file", 200),
    "between": ("of them from another room", 60),
}


def counted(run: Run) -> Part:
    """Count the fourth turn of a service; of several services, because the timing of events
    varies.
    """
    found: list[dict[str, Counter[str]]] = []
    wrong = 0
    for number in range(run.sizes.rounds):
        run.tell(f"round {number + 1} of {run.sizes.rounds}")
        counts, right = _one(run)
        found.append(counts)
        wrong += not right
    return _part(found, wrong)


def _one(run: Run) -> tuple[dict[str, Counter[str]], bool]:
    with run.serving_agent(module="bench.counted") as served, Samovar(served.address) as client:
        right = all(client.turn("Say OK") == "OK" for _ in range(COUNTED))
        told: dict[str, Any] = json.loads((served.config.parent / FILE).read_text())
    return {kind: Counter(counts) for kind, counts in told.items()}, right


def _part(found: list[dict[str, Counter[str]]], wrong: int) -> Part:
    part = Part("Functions of the service that a warm turn calls, by room", ["", *KINDS])
    part.wrong = wrong
    for room in sorted({room for counts in found for room in counts["calls"]}):
        cells = [f"{_median(found, kind, room):.0f}" for kind in KINDS]
        part.rows.append(Row(room, cells))
    part.figures = [
        Figure(name, statistics.median(counts[kind].total() for counts in found), most=most)
        for kind, (name, most) in KINDS.items()
    ]
    return part


def _median(found: list[dict[str, Counter[str]]], kind: str, room: str) -> float:
    return statistics.median(counts[kind][room] for counts in found)
