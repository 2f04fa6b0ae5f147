"""A session's directory: made, checked, emptied and removed without following a link.

Knows the four directories in it and where the agent puts transcripts. Knows nothing else of
sessions or of the agent. Everything below the root is reached through descriptors, because an agent
may plant links there. Every method blocks.
"""

import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from samovard.agent.gone import Gone, held
from samovard.agent.machine import lacks
from samovard.core.errors import Misconfigured

_NAME = re.compile(r"[0-9a-f]{32}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PARTS = ("config", "home", "tmp", "work")
# With a longer path the CLI puts its inbox into the machine's shared temp directory and does not
# report it: measured at 85 bytes, not at 82 (2.1.330).
_MAX_TMP_BYTES = 80
_MAX_PROJECTS = 1000
_BLOCK = 512  # bytes of a block of `st_blocks`, whatever the file system's own are (stat(2))
_LEAST = 4096  # bytes that a file counts for, as it takes an entry and an inode
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Home:
    """The directories of one session."""

    path: Path

    @property
    def config(self) -> Path:
        """The agent's own files, including its transcripts."""
        return self.path / "config"

    @property
    def home(self) -> Path:
        """`HOME` of the agent and its tools."""
        return self.path / "home"

    @property
    def tmp(self) -> Path:
        """Temporary files and the agent's sockets."""
        return self.path / "tmp"

    @property
    def work(self) -> Path:
        """The working directory."""
        return self.path / "work"

    @property
    def parts(self) -> tuple[Path, ...]:
        """All of them."""
        return tuple(self.path / part for part in _PARTS)


class Homes:
    """The directory that contains all homes; a context manager that keeps it open.

    Raise `Misconfigured` (directory-refused) wherever a directory is a link, not a directory,
    another user's or not of mode 0700, and `OSError` where the machine has too little of something.
    Safe to call from several threads, but only from one at a time for the same home.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self.on_gone: Callable[[], None] = lambda: None  # called when there is something to erase
        longest = len(os.fsencode(self._root)) + len("/") + 32 + len("/tmp")
        if longest > _MAX_TMP_BYTES:
            raise _refused(f"agent.root is {longest - _MAX_TMP_BYTES} bytes too long")
        self._descriptor = _made(os.fspath(self._root), None)
        try:
            # Directories that are being removed lie here, out of the way of a new home of the same
            # name.
            self.gone = Gone(_made("gone", self._descriptor))
        except BaseException:
            os.close(self._descriptor)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory; no other method may be called after it. Idempotent."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
        self.gone.close()

    def prepare(self, name: str) -> Home:
        """Make a session's home if it is new, check it, and replace a used `tmp`.

        The old `tmp` is moved away unread, because a start waits for this.
        """
        with held(_made(_checked(name), self._descriptor)) as home:
            for part in _PARTS:
                with held(_made(part, home)) as inside:
                    used = part == "tmp" and _used(inside)
                if used:
                    self.gone.take(part, home, name)
                    self.on_gone()
                    os.close(_made(part, home))
        return Home(self.path(name))

    def path(self, name: str) -> Path:
        """Return the path of a session's home, whether or not it exists."""
        return self._root / _checked(name)

    def open_work(self, name: str) -> int:
        """Open the working directory, checked; the caller closes the descriptor."""
        with held(_opened(_checked(name), self._descriptor)) as home:
            return _opened("work", home)

    def put(self, name: str, file: str, data: bytes) -> None:
        """Write a file of `config`, in place of what the agent may have left under its name."""
        with (
            held(_opened(_checked(name), self._descriptor)) as home,
            held(_opened("config", home)) as config,
        ):
            try:
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=config)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                made = os.open(file, flags, 0o600, dir_fd=config)
            except (IsADirectoryError, PermissionError) as error:
                raise _refused(f"{file} cannot be written: {error.strerror}") from error
            with open(made, "wb") as opened:
                opened.write(data)

    def open_projects(self, name: str) -> int | None:
        """Open the directory of the agent's transcripts; the caller closes the descriptor.

        Return None if there is none yet.
        """
        try:
            with (
                held(_opened(_checked(name), self._descriptor)) as home,
                held(_opened("config", home)) as config,
            ):
                return _opened("projects", config, private=False)
        except Misconfigured:
            return None

    def has_transcript(self, name: str, agent_session: str) -> bool:
        """True if the agent has something to resume from: a regular file that is not empty.

        At most 1000 projects are searched; links and hard links do not count.
        """
        projects = self.open_projects(name) if _UUID.fullmatch(agent_session) else None
        if projects is None:
            return False
        with held(projects), os.scandir(projects) as entries:
            names = [entry.name for entry in islice(entries, _MAX_PROJECTS)]
            return any(_is_transcript(each, agent_session, projects) for each in names)

    def used(self, name: str, most: int) -> int:
        """Return the bytes that a home takes on the disk, 0 if there is none.

        Each file takes a block at least, so that many empty ones count. The count ends above
        `most`. What cannot be looked into counts as too much: an agent may have closed it.
        """
        total, pending = 0, [_checked(name)]
        while pending and total <= most:
            try:
                taken, found = _taken(self._descriptor, pending.pop())
            except FileNotFoundError:
                continue  # there is none, or it was removed meanwhile
            except OSError as error:
                if lacks(error):
                    raise
                return most + 1
            total += taken
            pending += found
        return total

    def discard(self, name: str) -> None:
        """Move a home away to be erased later, so that its name is free. Idempotent.

        Raise `OSError` if it cannot be moved.
        """
        with suppress(FileNotFoundError):
            self.gone.take(_checked(name), self._descriptor, name)
            self.on_gone()

    def remove(self, name: str) -> None:
        """Remove a home with its content. Idempotent.

        The name is free at once. The next removal finishes one that failed or was cut off by a
        crash. Raise `OSError` if something cannot be removed.
        """
        self.discard(name)
        pending = self.gone.entries(name)
        while pending:
            pending += self.gone.erase(pending.pop())


def _used(directory: int) -> bool:
    with os.scandir(directory) as entries:
        return next(entries, None) is not None


def _made(name: str, parent: int | None) -> int:
    try:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=parent)
    except OSError as error:
        if lacks(error):
            raise
        raise _refused("a directory cannot be made") from error
    return _opened(name, parent)


def _opened(name: str, parent: int | None, *, private: bool = True) -> int:
    try:
        descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
    except OSError as error:
        if lacks(error):
            raise
        raise _refused("a directory is missing, a link or not a directory") from error
    found = os.fstat(descriptor)
    # A directory inherits the set-group bit from its parent, such as a volume with a group of its
    # own; without a bit for the group it grants nothing.
    mode = stat.S_IMODE(found.st_mode) & ~stat.S_ISGID
    if private and (found.st_uid != os.geteuid() or mode != 0o700):
        os.close(descriptor)
        raise _refused("a directory is another user's or not of mode 0700")
    return descriptor


def _taken(root: int, path: str) -> tuple[int, list[str]]:
    """Return the bytes of a directory's own entries, and the directories among them."""
    total, found = 0, []
    with held(os.open(path, _DIRECTORY, dir_fd=root)) as inside, os.scandir(inside) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                total += max(entry.stat(follow_symlinks=False).st_blocks * _BLOCK, _LEAST)
                if entry.is_dir(follow_symlinks=False):
                    found.append(os.path.join(path, entry.name))
    return total, found


def _is_transcript(project: str, agent_session: str, projects: int) -> bool:
    try:
        with held(os.open(project, _DIRECTORY, dir_fd=projects)) as inside:
            found = os.stat(f"{agent_session}.jsonl", dir_fd=inside, follow_symlinks=False)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1 and found.st_size > 0


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise _refused("a home's name is not 32 hex digits")
    return name


def _refused(message: str) -> Misconfigured:
    return Misconfigured(message, cause="directory-refused")
