"""The descriptors of the test's own process."""

import contextlib
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


def descriptors() -> set[tuple[str, str]]:
    """Return the open descriptors, each with the file that it is open on.

    Compare them with `<=`: descriptors that an earlier test left to other threads to close, gRPC's
    above all, may be closed at any moment.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return {(number, target) for number, target in found if not target.endswith("/fd")}


@contextmanager
def few_descriptors(left: int) -> Iterator[None]:
    """Limit this process to `left` more descriptors."""
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
    """Keep this process from opening any descriptor, even one whose number is free."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_free_descriptor() -> Iterator[None]:
    """Keep this process from opening another descriptor unless it closes one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
