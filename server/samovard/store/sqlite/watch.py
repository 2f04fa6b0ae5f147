"""Detect that the database's file was replaced, or written by another program.

In WAL mode only a checkpoint writes that file, and each checkpoint leaves a mark in the shared
index of the log: a file that changed without such a mark was overwritten. Knows SQLite's file
format (https://www.sqlite.org/walformat.html), nothing of what is stored.
"""

import os
import struct
import threading
from pathlib import Path

#: Offsets in the index of the log.
_SALTS = slice(32, 40)
_BACKFILLED, _ATTEMPTED = 96, 128
_LENGTH = 136


class Watch:
    """A check of the files of an open database. Thread-safe.

    Must be closed after the database: closing a file drops the locks that this process has on it.
    """

    def __init__(self, path: Path) -> None:
        self._paths = [path.with_name(f"{path.name}{suffix}") for suffix in ("", "-wal", "-shm")]
        self._index = os.open(self._paths[2], os.O_RDONLY)
        self._identities = self._found()
        self._lock = threading.Lock()
        self._seen: tuple[object, object] | None = None
        self._overwritten = False

    def close(self) -> None:
        """Close the index."""
        os.close(self._index)

    def look(self) -> str:
        """Return what is wrong with the files, or an empty string."""
        with self._lock:
            self._overwritten = self._overwritten or self._written()
        if self._overwritten:
            return "the store was overwritten"
        return "" if self._found() == self._identities else "the store is gone"

    def _written(self) -> bool:
        """True if the file changed since the last look and no checkpoint did it."""
        before = self._mark()
        try:
            found = os.stat(self._paths[0])
        except OSError:
            return False
        mark = self._mark()
        is_it = (found.st_dev, found.st_ino) == self._identities[0]
        if not is_it or mark is None or mark != before:  # None: a checkpoint is under way
            return False
        last, self._seen = self._seen, (mark, (found.st_mtime_ns, found.st_size))
        return last is not None and last[0] == mark and last[1] != self._seen[1]

    def _mark(self) -> tuple[bytes, int] | None:
        """Return the mark of the last checkpoint; None while one is in progress."""
        index = os.pread(self._index, _LENGTH, 0)
        (backfilled,) = struct.unpack_from("=I", index, _BACKFILLED)
        (attempted,) = struct.unpack_from("=I", index, _ATTEMPTED)
        return (index[_SALTS], backfilled) if backfilled == attempted else None

    def _found(self) -> list[tuple[int, int] | None]:
        return [_identity(path) for path in self._paths]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
