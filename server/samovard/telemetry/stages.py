"""The marks that a turn passes, the stages between them, and the parts within stages.

A stage is the time since the previous mark that was reached and bears the name of the
mark that ends it. All times are integer nanoseconds, so that stages add up exactly.
Independent of what a turn is.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
#: Each part with the stages that it may be in. An agent may ask for permission before or after
#: its first text.
PARTS = {
    "own": ("admit",),
    "wait": ("process_ready",),
    "start": ("process_ready",),
    "record": ("prompt_write",),
    "permission_wait": ("first_text", "finish"),
    "commit": ("deliver",),
}

_log = structlog.get_logger("samovard.turn")


class Stages:
    """The marks of one turn, on one monotonic clock of seconds.

    The wall clock is read once, at `receive`. Every other wall time is that plus a monotonic
    difference, so a jump of the wall clock cannot reorder them. `ids` identify the turn in its
    log lines.
    """

    __slots__ = ("_marks", "_offset", "ids", "now", "parts")

    def __init__(self, clock: Callable[[], float], wall: float) -> None:
        #: Return the turn's clock in nanoseconds. Called about twenty times per turn.
        self.now: Callable[[], int] = nanoseconds(clock)
        begin = self.now()
        self._offset = round(wall * 1e9) - begin
        self._marks = {"receive": begin}
        self.parts: dict[str, int] = {}
        self.ids: Mapping[str, str] = {}

    def mark(self, name: str) -> None:
        """Record that a mark is reached; ignored if it was reached before."""
        self._marks.setdefault(name, self.now())

    def reached(self, name: str) -> bool:
        """Return True if a mark was reached."""
        return name in self._marks

    def at(self, name: str) -> int | None:
        """Return the turn's clock at a mark in nanoseconds, or None if it was not reached."""
        return self._marks.get(name)

    def forget(self, *names: str) -> None:
        """Remove marks; the turn starts over from an earlier one."""
        for name in names:
            self._marks.pop(name, None)

    def wall(self, at: int) -> int:
        """Convert a time of the turn's clock to nanoseconds since the epoch."""
        return self._offset + at

    def wall_time(self, name: str) -> int | None:
        """Return the nanoseconds since the epoch at a mark, or None if it was not reached."""
        at = self._marks.get(name)
        return None if at is None else self.wall(at)

    def wall_times(self, names: Iterable[str]) -> dict[str, int | None]:
        """Return the nanoseconds since the epoch at each mark, or None where it was not reached."""
        marks, offset = self._marks, self._offset
        return {name: offset + marks[name] if name in marks else None for name in names}

    def wall_now(self) -> float:
        """Return the seconds since the epoch on the turn's own clock."""
        return (self._offset + self.now()) / 1e9

    def passed(self) -> list[tuple[str, int]]:
        """Return the marks of the call in order, each with its nanoseconds on the turn's clock.

        Marks that the turn reaches after its call has ended are left out.
        """
        end = self._marks.get("deliver")
        reached = ((name, self._marks[name]) for name in MARKS if name in self._marks)
        return [(name, at) for name, at in reached if end is None or at <= end]

    def durations(self) -> dict[str, int]:
        """Return the nanoseconds of each stage in order; they add up to the whole call."""
        return {name: at - before for (_, before), (name, at) in pairwise(self.passed())}

    def until(self, last: str) -> dict[str, int]:
        """Return the nanoseconds of each stage up to and including `last`, in order.

        What happens to the call afterwards makes no difference.
        """
        marks = MARKS[: MARKS.index(last) + 1]
        reached = [(name, self._marks[name]) for name in marks if name in self._marks]
        return {name: at - before for (_, before), (name, at) in pairwise(reached)}

    def add(self, part: str, duration: int) -> None:
        """Add nanoseconds to a part. A duration of 0 is ignored."""
        if duration:
            self.parts[part] = self.parts.get(part, 0) + duration

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time spent in the `with` block to a part."""
        begin = self.now()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0) + self.now() - begin


def nanoseconds(clock: Callable[[], float]) -> Callable[[], int]:
    """Return a clock in nanoseconds for a clock in seconds."""
    return time.monotonic_ns if clock is time.monotonic else lambda: round(clock() * 1e9)


def stage(stages: Stages, name: str) -> None:
    """End a stage of a turn; ignored if its mark was reached before.

    Log a line at the level `debug` now. When the turn is over, the mark becomes an event of the
    turn's span, a sample of the histogram and a field of the turn's log line.
    """
    marks = stages._marks
    if name not in marks:
        marks[name] = stages.now()
        _log.debug("turn.stage", stage=name, **stages.ids)
