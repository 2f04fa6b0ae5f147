"""Files that appear whole or not at all, and never in place of another one."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield an empty file of mode 0600 to write to, which gets the name `path` at the end.

    Raise `FileExistsError`, before the block and after it, if the name is taken. A block that
    raises leaves nothing.
    """
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with beside(path) as made:
        yield made
        os.link(made, path)  # unlike a rename, it replaces nothing
        sync(path.parent)


@contextmanager
def beside(path: Path) -> Iterator[Path]:
    """Yield an empty file of mode 0600 in the directory of `path`, removed at the end."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return once a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
