"""The bounds of one turn, and the guard that keeps them.

Everything that may end a turn because of what it used is here: time, steps and cost. How long a
turn may go without progress is the watchdog's. Knows nothing of who asks for a bound or of how a
turn is stopped.
"""

import asyncio
from collections.abc import Callable
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
        """Return these bounds where they are set and lower, else the outer ones."""
        return Limits(
            _lower(self.timeout, outer.timeout),
            _lower(self.steps, outer.steps),
            _lower(self.cost_usd, outer.cost_usd),
        )


class LimitGuard:
    """Keeps the bounds of one turn: calls `on_limit`, with the bound's name, when one is reached.

    It is told of steps and cost, and counts the time itself from `start` to `stop`. After the
    first bound it says nothing more.
    """

    def __init__(self, limits: Limits, on_limit: Callable[[str], None]) -> None:
        self._limits = limits
        self._on_limit = on_limit
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Count the time from now on."""
        seconds = self._limits.timeout
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._reached, f"{seconds:g} s")

    def on_steps(self, steps: int) -> None:
        """Called with the steps that the main agent has begun."""
        if self._limits.steps is not None and steps > self._limits.steps:
            self._reached(f"{self._limits.steps} steps")

    def on_cost(self, usd: float) -> None:
        """Called with what the turn has cost so far, in US dollars."""
        if self._limits.cost_usd is not None and usd >= self._limits.cost_usd:
            self._reached(f"{self._limits.cost_usd:g} US dollars")

    def stop(self) -> None:
        """Keep no bound any more. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _reached(self, what: str) -> None:
        if not self._stopped:
            self.stop()
            self._on_limit(what)


def _lower(inner: Number | None, outer: Number | None) -> Number | None:
    if inner is None or outer is None:
        return inner if outer is None else outer
    return min(inner, outer)
