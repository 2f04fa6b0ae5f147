"""The limits of one turn on time, steps and cost, and the guard that enforces them.

How long a turn may go without progress is the watchdog's concern. This module does not depend on
where limits come from or on how a turn is stopped.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

Number = TypeVar("Number", int, float)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a turn. None means no limit.

    `timeout` is in seconds. `steps` counts the steps of the main agent; a step is one answer of
    the model with the tools that it calls. `cost_usd` is in US dollars, as the agent counts them.
    """

    timeout: float | None = None
    steps: int | None = None
    cost_usd: float | None = None

    def within(self, outer: "Limits") -> "Limits":
        """Return for each limit the lower one of these and the outer limits."""
        return Limits(
            _lower(self.timeout, outer.timeout),
            _lower(self.steps, outer.steps),
            _lower(self.cost_usd, outer.cost_usd),
        )


class Budget(Protocol):
    """A limit on cost that a turn shares with others."""

    def costs(self, usd: float) -> str:
        """Called with the turn's cost so far. Return a description of the limit if it is passed."""

    def ended(self, usd: float) -> None:
        """Called with the cost of the turn once it has ended. Idempotent."""


class LimitGuard:
    """The guard of one turn's limits.

    It calls `on_limit` with a description of the first limit that is reached, and never again.
    It is told about steps and cost, and measures the time from `start` to `stop` itself.
    """

    def __init__(
        self, limits: Limits, on_limit: Callable[[str], None], budget: Budget | None = None
    ) -> None:
        self._limits = limits
        self._budget = budget
        self._on_limit = on_limit
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Start the timeout."""
        seconds = self._limits.timeout
        if seconds is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(seconds, self._reached, f"{seconds:g} s")

    def on_steps(self, steps: int) -> None:
        """Called with the number of steps that the main agent has begun."""
        # `>`: the last allowed step has only begun, and may still be the one that ends the turn.
        if self._limits.steps is not None and steps > self._limits.steps:
            self._reached(f"{self._limits.steps} steps")

    def on_cost(self, usd: float) -> None:
        """Called with the cost of the turn so far, in US dollars."""
        if self._limits.cost_usd is not None and usd >= self._limits.cost_usd:
            self._reached(f"{self._limits.cost_usd:g} US dollars")
        elif self._budget is not None and (passed := self._budget.costs(usd)):
            self._reached(passed)

    def spent(self, usd: float) -> None:
        """Called with the cost of the turn, in US dollars, once it is known to have ended."""
        if self._budget is not None:
            self._budget.ended(usd)

    def stop(self) -> None:
        """Enforce no limit any more. Idempotent."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _reached(self, what: str) -> None:
        if not self._stopped:
            self.stop()  # first, because the callback may lead to another report of usage
            self._on_limit(what)


def _lower(inner: Number | None, outer: Number | None) -> Number | None:
    # None is no limit, so it is higher than any number.
    if inner is None or outer is None:
        return inner if outer is None else outer
    return min(inner, outer)
