"""Bounds on one turn. Knows nothing of who asks for them or of how a turn is stopped."""

from dataclasses import dataclass
from typing import TypeVar

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a turn may run, in seconds, and how many steps its main agent may take.

    A step is one answer of the model, with the tools that it calls; `cost_usd` is what the
    turn may cost by the agent's own count. None: no bound.
    """

    timeout: float | None = None
    steps: int | None = None
    cost_usd: float | None = None

    def within(self, outer: "Limits") -> "Limits":
        """Gives these bounds where they are set and lower, else the outer ones."""
        return Limits(
            _lower(self.timeout, outer.timeout),
            _lower(self.steps, outer.steps),
            _lower(self.cost_usd, outer.cost_usd),
        )


def _lower(inner: Number | None, outer: Number | None) -> Number | None:
    if inner is None or outer is None:
        return inner if outer is None else outer
    return min(inner, outer)
