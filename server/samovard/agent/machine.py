"""What a start needs of this machine: its programs, descriptors, disk, a directory to write to.

Only looks, and costs next to nothing: whether an agent really starts is tried elsewhere. Every
look blocks for a moment. Knows nothing of sessions.
"""

import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from samovard.core.errors import NoProcess

#: Kept for callers, the store and the log, whatever else is wanted.
RESERVED_DESCRIPTORS = 32
#: A resume hangs on a full disk (anthropics/claude-code#69734).
RESERVED_DISK = 0.05
#: Of a large disk that share is more than agents need.
ENOUGH_DISK = 2 << 30

_CAUSES = {
    errno.EMFILE: "out-of-descriptors",
    errno.ENFILE: "out-of-descriptors",
    errno.ENOMEM: "out-of-memory",
    errno.ENOSPC: "out-of-disk",
    errno.EDQUOT: "out-of-disk",
}


def cause_of(error: OSError) -> str:
    """Names what a start lacked."""
    return _CAUSES.get(error.errno or 0, "start-failed")


def lacks(error: OSError) -> bool:
    """Tells whether an error means that the machine has too little of something."""
    return error.errno in _CAUSES


def spare_descriptors() -> None:
    """Raises `NoProcess` (out-of-descriptors) if a start would leave too few to the service."""
    if _free_descriptors() < RESERVED_DESCRIPTORS:
        raise NoProcess("too few descriptors are left", cause="out-of-descriptors", retry_after=1.0)


class Machine:
    """What starts need of it. `programs` are to stay as they are now.

    Below `state` and `root` there is to be room on the disk.
    """

    def __init__(self, programs: tuple[Path, ...], state: Path, root: Path) -> None:
        self._state = state
        self._root = root
        self._known = {path: identity(path) for path in programs}

    def changed(self) -> dict[Path, str]:
        """Gives the programs that are not as they were taken, and what they are now."""
        now = {path: identity(path) for path in self._known}
        return {path: found for path, found in now.items() if found != self._known[path]}

    def take(self, programs: dict[Path, str]) -> None:
        """Takes programs as they were found."""
        self._known |= programs

    def failing(self) -> tuple[str, ...]:
        """Names the checks that fail."""
        return tuple(self._failing())

    def _failing(self) -> Iterator[str]:
        changed = self.changed()
        if changed:
            yield "binary-changed" if all(changed.values()) else "binary-missing"
        if _free_descriptors() < RESERVED_DESCRIPTORS:
            yield "out-of-descriptors"
        if not (_has_disk(self._state) and _has_disk(self._root)):
            yield "out-of-disk"
        elif not _writable(self._state):
            yield "state-not-writable"


def identity(path: Path) -> str:
    """Tells one state of a file from another; empty if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _free_descriptors() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return limit - len(os.listdir("/proc/self/fd"))
    except OSError:  # there is not even one for the look
        return 0


def _has_disk(directory: Path) -> bool:
    try:
        disk = os.statvfs(directory)
    except OSError:
        return True  # that it is not there is another check's finding
    free = disk.f_bavail * disk.f_frsize
    least = min(RESERVED_DISK * disk.f_blocks * disk.f_frsize, ENOUGH_DISK)
    # Some file systems count no inodes.
    return free >= least and (disk.f_favail > 0 or disk.f_files == 0)


def _writable(directory: Path) -> bool:
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"samovar")
    except OSError:
        return False
    return True
