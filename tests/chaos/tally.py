"""The counts of a run, and the bounds that they must stay within."""

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Nothing that stands here may happen at all.
NEVER = (
    "foreign_events",
    "calls_without_one_end",
    "calls_past_their_deadline",
    "unexplained_ends",
    "transcripts_lost",
    "orphans",
    "old_zombies",
    "descriptors_left",
    "threads_left",
    "homes_left",
    "turns_left",
    "waiters_left",
    "processes_left",
)
#: Figures of speed, in seconds: of each the bound of its 99th percentile. They are reported.
SPEEDS = {"death_to_status": 0.25, "cancel_to_quiet": 5.0}


@dataclass
class Tally:
    """Counts of one run of so many turns; `kills` is how many of each state there must be."""

    turns: int
    kills: int
    states: Sequence[str]
    counts: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    killed: Counter[str] = field(default_factory=Counter)
    times: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in SPEEDS})
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, what: str, example: str = "", more: int = 1) -> None:
        """Count something; what must not happen is kept with an example."""
        self.counts[what] += more
        if what in NEVER and more and len(self.examples) < 10:
            self.examples.append(f"{what}: {example}")

    @property
    def broken(self) -> list[str]:
        """The bounds that were broken, those of speed not among them."""
        missing = [f"kills while {name}" for name in self.states if self.killed[name] < self.kills]
        if self.counts["turns"] < self.turns:
            missing.append("turns")
        return missing + [name for name in NEVER if self.counts[name]]

    def report(self) -> dict[str, object]:
        """Return each figure, with its bound where it has one."""
        figures: dict[str, object] = {
            "turns": {"value": self.counts["turns"], "at_least": self.turns},
            "ends": dict(sorted(self.ends.items())),
            "kills": {
                name: {"value": self.killed[name], "at_least": self.kills} for name in self.states
            },
        }
        figures |= {name: {"value": self.counts[name], "at_most": 0} for name in NEVER}
        for name, bound in SPEEDS.items():
            figures[f"{name}_s"] = _percentiles(self.times[name]) | {"p99_at_most": bound}
        return figures | {"seconds": round(self.seconds, 1), "examples": self.examples}


def _percentiles(times: list[float]) -> dict[str, float | int | None]:
    if len(times) < 2:
        return {"count": len(times), "p50": None, "p99": None}
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    return {"count": len(times), "p50": round(cuts[49], 4), "p99": round(cuts[98], 4)}
