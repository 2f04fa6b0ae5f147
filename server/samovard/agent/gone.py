"""Removed directories until they are erased, and how they are erased.

Everything is reached through descriptors and no link is followed, because the content belonged to
an agent. Every function here blocks. Knows nothing of sessions or of threads.
"""

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Stopped(Exception):
    """Raised when erasing was to stop before its end."""


class Gone:
    """The directory of entries that are being removed, given as a descriptor that this object
    closes.

    An entry is named after the home that it came from. Two threads may erase at once: what one of
    them has erased is no failure of the other.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def copy(self) -> "Gone":
        """Return the same directory with a descriptor of its own."""
        return Gone(os.dup(self._descriptor))

    def take(self, entry: str, source: int, home: str) -> str:
        """Move an entry of a directory here, as one of a home's, and return its new name."""
        target = f"{home}.{secrets.token_hex(8)}"
        try:
            os.rename(entry, target, src_dir_fd=source, dst_dir_fd=self._descriptor)
        except PermissionError:
            # Moving a directory writes its `..` entry, which the agent may have forbidden.
            os.close(_entered(entry, source))
            os.rename(entry, target, src_dir_fd=source, dst_dir_fd=self._descriptor)
        return target

    def entries(self, home: str = "") -> list[str]:
        """Return the entries, of one home or of all."""
        prefix = f"{home}." if home else ""
        return [entry for entry in os.listdir(self._descriptor) if entry.startswith(prefix)]

    def erase(self, entry: str, goes_on: Callable[[], bool] = lambda: True) -> list[str]:
        """Erase an entry except the directories in it. Return those, which become entries here.

        This takes one descriptor and no recursion: an agent may have nested directories deeper than
        any stack or limit. Raise `Stopped` once `goes_on` returns False, and `OSError`.
        """
        with suppress(FileNotFoundError):
            try:
                inside = _entered(entry, self._descriptor)
            except NotADirectoryError:
                os.unlink(entry, dir_fd=self._descriptor)
                return []
            with held(inside):
                found = self._emptied(inside, home_of(entry), goes_on)
            with suppress(FileNotFoundError):
                os.rmdir(entry, dir_fd=self._descriptor)
            return found
        return []

    def _emptied(self, directory: int, home: str, goes_on: Callable[[], bool]) -> list[str]:
        moved = []
        with os.scandir(directory) as entries:
            listed = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry, is_directory in listed:
            if not goes_on():
                raise Stopped
            with suppress(FileNotFoundError):
                if is_directory:
                    moved.append(self.take(entry, directory, home))
                else:
                    os.unlink(entry, dir_fd=directory)
        return moved


def home_of(entry: str) -> str:
    """Return the name of the home that an entry came from."""
    return entry.partition(".")[0]


@contextmanager
def held(descriptor: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _entered(entry: str, parent: int) -> int:
    # Through a descriptor that needs no permission, so that the right directory's mode is changed.
    flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with held(os.open(entry, flags, dir_fd=parent)) as handle:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", _DIRECTORY, dir_fd=handle)
