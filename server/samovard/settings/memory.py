"""The memory that this service may use.

Knows control groups (version 2). Knows nothing of what the memory is for.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_OURS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable(ours: Path = _OURS, groups: Path = _GROUPS) -> int:
    """Return the usable memory in bytes: the least of the machine's and the control groups' limits.

    A container sees its own group as the root; a unit of systemd lies some levels below.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(ours, groups)])


def _limits(ours: Path, groups: Path) -> Iterator[int]:
    for group in _around(ours, groups):
        try:
            limit = (group / "memory.max").read_text().strip()
        except OSError:  # the machine's root group has no limit
            continue
        if limit.isdigit():
            yield int(limit)


def _around(ours: Path, groups: Path) -> Iterator[Path]:
    """Yield the directory of our group and those of the groups above it."""
    yield groups
    try:
        lines = ours.read_text().splitlines()
    except OSError:
        return
    named = next((line[3:] for line in lines if line.startswith("0::")), "/")
    parts = [part for part in named.split("/") if part]
    if ".." in parts:  # our group was moved out of what this process can see
        return
    for depth in range(len(parts)):
        yield groups.joinpath(*parts[: depth + 1])
