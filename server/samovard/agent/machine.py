"""What a start needs of this machine: programs, descriptors, disk space, a writable directory.

These are quick looks that block for a moment; whether an agent really starts is tested elsewhere.
Knows nothing of sessions.
"""

import errno
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from samovard.core.errors import NoProcess

#: Reserved for callers, the store and the log.
RESERVED_DESCRIPTORS = 32
#: A resume hangs on a full disk (anthropics/claude-code#69734).
RESERVED_DISK = 0.05
#: On a large disk that share is more than agents need.
ENOUGH_DISK = 2 << 30

_CAUSES = {
    errno.EMFILE: "out-of-descriptors",
    errno.ENFILE: "out-of-descriptors",
    errno.ENOMEM: "out-of-memory",
    errno.ENOSPC: "out-of-disk",
    errno.EDQUOT: "out-of-disk",
}


def cause_of(error: OSError) -> str:
    """Return the cause of a failed start, as a word."""
    return _CAUSES.get(error.errno or 0, "start-failed")


def lacks(error: OSError) -> bool:
    """True if an error means that the machine has too little of something."""
    return error.errno in _CAUSES


def spare_descriptors() -> None:
    """Raise `NoProcess` (out-of-descriptors) if a start would leave the service too few."""
    if _free_descriptors() < RESERVED_DESCRIPTORS:
        raise NoProcess("too few descriptors are left", cause="out-of-descriptors", retry_after=1.0)


class Machine:
    """What starts need of the machine. `programs` must stay as they are now.

    The disks of `state` and `root` must have room.
    """

    def __init__(self, programs: tuple[Path, ...], state: Path, root: Path) -> None:
        self._state = state
        self._root = root
        self._known = {path: identity(path) for path in programs}

    def changed(self) -> dict[Path, str]:
        """Return the programs that have changed, each with its new state."""
        now = {path: identity(path) for path in self._known}
        return {path: found for path, found in now.items() if found != self._known[path]}

    def take(self, programs: dict[Path, str]) -> None:
        """Accept programs as they are now."""
        self._known |= programs

    def failing(self) -> tuple[str, ...]:
        """Return the names of the checks that fail."""
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
    """Return a value that identifies one state of a file; empty if there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return ""
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _free_descriptors() -> int:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return limit - len(os.listdir("/proc/self/fd"))
    except OSError:  # no descriptor is left, not even for this look
        return 0


def _has_disk(directory: Path) -> bool:
    try:
        disk = os.statvfs(directory)
    except OSError:
        return True  # a missing one is reported by another check
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
