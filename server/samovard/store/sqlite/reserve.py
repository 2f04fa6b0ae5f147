"""Disk space kept for the database, and given to its log once the disk is full.

A full disk must not keep turns from ending or sessions from being deleted, both of which write a
few pages. Knows files and SQLite's write-ahead log, nothing of what is stored.
"""

import contextlib
import os
from pathlib import Path

SIZE = 4 << 20
#: The reserve's part of a small disk.
SHARE = 8
LEAST = 64 << 10


class Reserve:
    """A file of allocated blocks beside the database."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-reserve")
        self._log = database.with_name(f"{database.name}-wal")
        self.used = False  # given up, and not made again yet

    def renew(self) -> bool:
        """Make the file again if there is room for it twice. Return False while it is given up."""
        with contextlib.suppress(OSError):
            disk = os.statvfs(self._path.parent)
            size = min(SIZE, disk.f_blocks * disk.f_frsize // SHARE)
            if not self._path.exists() and disk.f_bavail * disk.f_frsize >= 2 * size:
                self._make(size)
            self.used = self.used and not self._path.exists()
        return not self.used

    def keep(self) -> None:
        """Make the file from the space of a closed log, for the next start on a full disk."""
        size = SIZE
        while self.used and size >= LEAST:
            with contextlib.suppress(OSError):
                self._make(size)
                self.used = False
            size //= 2

    def _make(self, size: int) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(file, 0, size)
        except OSError:
            self._path.unlink()
            raise
        finally:
            os.close(file)

    def give_up(self) -> int:
        """Free the space and return its size in bytes."""
        try:
            size = self._path.stat().st_size
            self._path.unlink()
        except OSError:
            return 0
        self.used = True
        return size

    def lend(self, size: int) -> None:
        """Give the log three quarters of the freed space, before other programs take it.

        The rest is for the growth of the database. The caller must hold the write lock.
        """
        size = size // 4 * 3
        with contextlib.suppress(OSError):
            file = os.open(self._log, os.O_WRONLY)
            try:
                while size >= LEAST and not _extended(file, size):
                    size //= 2
            finally:
                os.close(file)


def _extended(file: int, size: int) -> bool:
    # Frames that SQLite has not written carry no valid checksum: it never reads them.
    try:
        os.posix_fallocate(file, os.fstat(file).st_size, size)
    except OSError:
        return False
    return True
