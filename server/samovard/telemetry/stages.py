"""The marks that a turn passes, and the stages between them.

A stage is the time since the previous mark that was reached and bears the name of the
mark that ends it. Knows nothing of what a turn is.
"""

from collections.abc import Callable
from itertools import pairwise

import structlog

MARKS = (
    "receive",
    "admit",
    "process_ready",
    "prompt_write",
    "first_event",
    "first_text",
    "finish",
    "deliver",
)

_log = structlog.get_logger("samovard.turn")


class Stages:
    """The marks of one turn, on one monotonic clock.

    The wall clock is read once, at `receive`; every other wall time is that plus a
    monotonic difference, so that a jump of the clock cannot reorder them.
    """

    __slots__ = ("_clock", "_marks", "_wall")

    def __init__(self, clock: Callable[[], float], wall: float) -> None:
        self._clock = clock
        self._wall = wall
        self._marks: dict[str, float] = {"receive": clock()}

    def mark(self, name: str) -> None:
        """Reaches a mark; only the first time counts."""
        self._marks.setdefault(name, self._clock())

    def reached(self, name: str) -> bool:
        """Tells whether a mark was reached."""
        return name in self._marks

    def forget(self, *names: str) -> None:
        """Takes marks back: the turn starts over from an earlier one."""
        for name in names:
            self._marks.pop(name, None)

    def wall_time(self, name: str) -> float | None:
        """Gives the seconds since the epoch at a mark, None if it was not reached."""
        at = self._marks.get(name)
        return None if at is None else self._wall + (at - self._marks["receive"])

    def wall_now(self) -> float:
        """Gives the seconds since the epoch on the turn's own clock."""
        return self._wall + (self._clock() - self._marks["receive"])

    def durations(self) -> dict[str, float]:
        """Gives the seconds of each reached stage, in order; they add up to the whole."""
        reached = [(name, self._marks[name]) for name in MARKS if name in self._marks]
        return {name: at - before for (_, before), (name, at) in pairwise(reached)}


def stage(stages: Stages, name: str) -> None:
    """Ends a stage of a turn: takes the mark and writes a log line for debugging."""
    if not stages.reached(name):
        stages.mark(name)
        _log.debug("turn.stage", stage=name)
