"""The counts of a run, and the bounds that they must stay within."""

from collections import Counter
from dataclasses import dataclass, field

#: Nothing that stands here may happen at all.
NEVER = (
    "foreign_events",
    "gaps",
    "streams_without_one_end",
    "wrong_answers",
    "wrong_outcomes",
    "processes_lost",
    "turns_left",
    "waiters_left",
    "leases_left",
)


@dataclass
class Tally:
    """Counts of one run against one agent; `races` is how many were to be run."""

    races: int
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def count(self, what: str, example: str = "") -> None:
        """Count something; what must not happen is kept with an example."""
        self.counts[what] += 1
        if what in NEVER and len(self.examples) < 10:
            self.examples.append(f"{what}: {example}")

    @property
    def broken(self) -> list[str]:
        """The bounds that were broken."""
        missing = ["races"] if self.counts["races"] < self.races else []
        return missing + [name for name in NEVER if self.counts[name]]

    def report(self) -> dict[str, object]:
        """Return each figure, with its bound where it has one."""
        told = ("turns", "events", "interrupted", "completed", "withdrawn", "cancelled")
        figures: dict[str, object] = {name: self.counts[name] for name in told}
        figures["races"] = {"value": self.counts["races"], "at_least": self.races}
        figures |= {name: {"value": self.counts[name], "at_most": 0} for name in NEVER}
        return figures | {"seconds": round(self.seconds, 1), "examples": self.examples}
