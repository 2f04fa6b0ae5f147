"""What is fuzzed: a kind of input, how it is drawn, and what must hold for each.

Knows nothing of how many there are, or of what becomes of a crash.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from types import FrameType
from typing import Any

#: Seconds of the processor's time, in which no other program has a part: one input takes
#: milliseconds.
PATIENCE = 10.0


class TooLong(BaseException):
    """An input took all the time that it has: no `except Exception` may hold it up."""


Check = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Target:
    """`kind` is the inputs' own msgspec struct.

    `checking` sets up what checks one input after the other: it returns, or raises for a crash.
    """

    name: str
    kind: type[Any]
    draw: Callable[[Random], Any]
    checking: Callable[[], contextlib.AbstractContextManager[Check]]


@contextlib.contextmanager
def limited() -> Iterator[None]:
    """Raise `TooLong` for what takes more than its time."""
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    raise TooLong
