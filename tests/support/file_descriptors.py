"""The descriptors of the test's own process."""

import contextlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def descriptors() -> set[tuple[str, str]]:
    """Gives the open descriptors, each with what it is open on.

    To be compared with `<=`: what an earlier test left to others to close, gRPC's threads
    above all, may be closed at any moment.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # it was of the listing itself
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return {(number, target) for number, target in found if not target.endswith("/fd")}


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """Leave this process no more than so many descriptors that it may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Less one, of the look itself.
    used = len(os.listdir("/proc/self/fd")) - 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open none: not even one whose number is free among those in use."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
