"""The memory that this service may use.

Knows control groups (version 2). Knows nothing of what the memory is for.
"""

import os
from collections.abc import Iterator
from pathlib import Path

_OURS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")


def usable(ours: Path = _OURS, groups: Path = _GROUPS) -> int:
    """Gives bytes: the least of the machine's and of the limits of the groups around us.

    A container sees its own group as the root; a unit of systemd lies some levels below.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *_limits(ours, groups)])


def _limits(ours: Path, groups: Path) -> Iterator[int]:
    for group in _around(ours, groups):
        try:
            limit = (group / "memory.max").read_text().strip()
        except OSError:  # the machine's own root has none
            continue
        if limit.isdigit():
            yield int(limit)


def _around(ours: Path, groups: Path) -> Iterator[Path]:
    """Gives the directory of our group and those of the groups that it lies in."""
    yield groups
    try:
        lines = ours.read_text().splitlines()
    except OSError:
        return
    named = next((line[3:] for line in lines if line.startswith("0::")), "/")
    parts = [part for part in named.split("/") if part]
    if ".." in parts:  # we were moved out of what we see
        return
    for depth in range(len(parts)):
        yield groups.joinpath(*parts[: depth + 1])
