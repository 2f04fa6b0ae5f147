"""The cost of a turn so far, as the CLI itself counts it.

The CLI answers `get_usage` in the middle of a turn with the running totals of its session, by its
own prices, sub-agents included; a model's answer counts once it has ended (measured on 2.1.330).
Knows nothing of bounds.
"""

from collections.abc import Callable

import msgspec

from samovard.agent.frames import Reply
from samovard.core.events import bounded_cost


class _Session(msgspec.Struct):
    total_cost_usd: float


class _Usage(msgspec.Struct):
    session: _Session


class Meter:
    """The cost of a turn, requested from the CLI by `ask`, which returns the request's id."""

    def __init__(self, ask: Callable[[], str]) -> None:
        self._ask = ask
        self._asked = ""
        self._again = False  # a cost arose after the last request
        self._before = 0.0  # the total before the turn

    def begin(self, total: float) -> None:
        """Count from a total on: the one at the start, or in the last report."""
        self._before = total

    def look(self) -> None:
        """Ask now, or as soon as the last answer has arrived."""
        if self._asked:
            self._again = True
        else:
            self._asked = self._ask()

    def take(self, reply: Reply) -> float | None:
        """Return the turn's cost in US dollars, or None if this answers another request.

        It is infinite if the CLI does not tell its cost: what cannot be counted cannot be bounded.
        """
        if reply.request_id != self._asked:
            return None
        self._asked = ""
        if self._again:
            self._again = False
            self.look()
        total = total_of(reply)
        return float("inf") if total is None else total - self._before


def total_of(reply: Reply) -> float | None:
    """Return the total of a session in US dollars, or None if the answer does not contain it."""
    if reply.subtype != "success":
        return None
    try:
        told = msgspec.json.decode(reply.response, type=_Usage).session.total_cost_usd
    except msgspec.DecodeError:
        return None
    return bounded_cost(told)
