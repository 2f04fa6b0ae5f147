"""Die at each step of some work, one after another. For a process of its own: the hook stays."""

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

DIED = 9


def at_each_step(
    place: Path,
    steps: Collection[str],
    make: Callable[[Path], object],
    work: Callable[[Path], object],
) -> None:
    """Work in one directory of `place` after another, until a run ends by itself.

    `make` makes each, named by its number: the run in it dies before that step. Steps are names of
    Python's audit events.
    """
    left: int | None = None

    def hook(event: str, _: object) -> None:
        nonlocal left
        if left is not None and event in steps:
            left -= 1
            if left < 0:
                os._exit(DIED)

    sys.addaudithook(hook)
    code = DIED
    while code:
        there = place / str(len(os.listdir(place)))
        make(there)
        if not (child := os.fork()):
            left = int(there.name)
            work(there)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, DIED)
