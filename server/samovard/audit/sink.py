"""The destinations of audit lines: a file of the service's own, or an inherited descriptor.

Knows files and descriptors. Knows nothing of what a line says. Everything here blocks.
"""

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from samovard.telemetry import log

OFF = "off"
DESCRIPTORS = {"stdout": 1, "stderr": 2}
#: Bytes of disk that are reserved ahead of use, so that a full disk stops nothing at once.
ROOM = 1 << 20

_FALLOC_FL_KEEP_SIZE = 1
_SEVERAL = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class Refused(OSError):
    """Raised if the sink cannot hold an audit log; the message is one sentence with the reason."""


class Written(NamedTuple):
    """The number of whole lines that were written, and the error that stopped the rest."""

    lines: int
    error: OSError | None = None


class Sink(Protocol):
    """A destination of whole lines, in order."""

    def write(self, lines: Sequence[bytes]) -> Written:
        """Write lines, up to the first that fails."""

    def close(self) -> None:
        """Close what was opened."""


def sink(target: str, *, own: bool = False) -> "Sink":
    """Return the sink of a setting: a path, `stdout`, `stderr` or `fd:N`. Raise `OSError`.

    `own`: the path is in the state directory, which also holds the service's secrets.
    """
    if (number := descriptor_of(target)) is not None:
        return Descriptor(number, target)
    return File(Path(target), own=own)


def descriptor_of(target: str) -> int | None:
    """Return the number of the descriptor that a setting names, None for a path."""
    match = re.fullmatch(r"fd:(\d{1,5})", target, re.ASCII)
    return int(match[1]) if match else DESCRIPTORS.get(target)


class File:
    """A file that only its owner can read. After a rename or removal it is opened anew."""

    def __init__(self, path: Path, room: int = ROOM, *, own: bool = False) -> None:
        self._path = path.absolute()
        self._own = own
        self._room = room
        self._file = -1
        self._identity: tuple[int, int] | None = None
        self._size = 0  # of the file, after the last write
        self._kept = 0  # offset at which the reserved room ends
        self._torn = False
        self._open()

    def write(self, lines: Sequence[bytes]) -> Written:
        """Append lines to the file that the path names now."""
        try:
            return Written(*self._append(lines, self._look()))
        except OSError as error:
            return Written(0, error)

    def close(self) -> None:
        """Close the file; the next start takes over its preallocated room."""
        if self._file >= 0:
            os.close(self._file)
        self._file, self._identity = -1, None

    def _append(self, lines: Sequence[bytes], before: int) -> tuple[int, OSError | None]:
        """Return how many lines were written after `before` bytes, and the error that stopped the
        rest.
        """
        head = b"\n" if self._torn else b""
        data, done = memoryview(head + b"".join(lines)), 0
        try:
            while done < len(data):
                done += os.write(self._file, data[done:])
                self._torn = False
        except OSError as error:
            return self._whole(lines, done - len(head), before + done), error
        return len(lines), None

    def _whole(self, lines: Sequence[bytes], done: int, end: int) -> int:
        """Return how many whole lines are among the bytes written, and truncate what follows
        them.
        """
        count = 0
        for line in lines:
            if len(line) > done:
                break
            count, done = count + 1, done - len(line)
        if done > 0:
            self._torn = True
            with contextlib.suppress(OSError):
                # Another program, such as `samovard keys`, may have written after it.
                if os.fstat(self._file).st_size == end:
                    os.ftruncate(self._file, end - done)
                    self._torn = False
        return count

    def _keep_room(self, size: int) -> None:
        if size < self._size:  # it was truncated, together with its reserved room
            self._kept = 0
        self._size = size
        if self._kept - size < self._room // 2 and _allocated(self._file, size, self._room):
            self._kept = size + self._room

    def _look(self) -> int:
        """Open the file that the path names now, if it is another one, and return its size.

        Called once for each write, because each call takes the interpreter's lock from the event
        loop.
        """
        try:
            found = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            found = None
        if found is None or (found.st_dev, found.st_ino) != self._identity:
            self._open()
            found = os.fstat(self._file)
        self._keep_room(found.st_size)
        return found.st_size

    def _open(self) -> None:
        self.close()
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._check_directory(os.fstat(directory))
            self._file = self._opened(directory)
        finally:
            os.close(directory)
        try:
            found = os.fstat(self._file)
            self._check(found)
            if found.st_mode & _OTHERS:
                os.fchmod(self._file, 0o600)
        except OSError:
            self.close()
            raise
        self._identity = found.st_dev, found.st_ino
        self._size, self._kept, self._torn = 0, 0, False
        self._keep_room(found.st_size)

    def _opened(self, directory: int) -> int:
        try:
            return os.open(self._path.name, _FLAGS | os.O_CREAT, 0o600, dir_fd=directory)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise Refused(f"{self._path} is a symbolic link") from None
            if error.errno == errno.ENXIO:  # a pipe without a reader, or a socket
                raise Refused(f"{self._path} is not a regular file") from None
            raise

    def _check_directory(self, found: os.stat_result) -> None:
        if self._own:  # a volume of a container may be open to a group of its own
            return
        if found.st_mode & _SEVERAL:
            raise Refused(f"others can write to {self._path.parent}")
        if found.st_uid not in (0, os.geteuid()):
            raise Refused(f"{self._path.parent} belongs to another user")

    def _check(self, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise Refused(f"{self._path} is not a regular file")
        if found.st_uid != os.geteuid():
            raise Refused(f"{self._path} belongs to another user")


class Descriptor:
    """A descriptor that the service was started with, such as a pipe to a collector."""

    def __init__(self, number: int, name: str) -> None:
        try:
            mode = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE
            self._file = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3)
        except OSError:
            raise Refused(f"{name} is not open") from None
        if mode == os.O_RDONLY:
            os.close(self._file)
            raise Refused(f"{name} is not open for writing")
        if number > DESCRIPTORS["stderr"]:
            os.set_inheritable(number, False)
        self._write = log.Descriptor(self._file)

    def write(self, lines: Sequence[bytes]) -> Written:
        """Write lines one by one: longer writes to a pipe mix with those of other programs."""
        for count, line in enumerate(lines):
            try:
                self._write(line)
            except OSError as error:
                return Written(count, error)
        return Written(len(lines))

    def close(self) -> None:
        """Close the copy."""
        os.close(self._file)


def _allocated(file: int, offset: int, size: int) -> bool:
    """Preallocate blocks after the file's end. Return False if that is not possible."""
    numbers = ctypes.c_int64(offset), ctypes.c_int64(size)
    return not ctypes.CDLL(None).fallocate(file, _FALLOC_FL_KEEP_SIZE, *numbers)
