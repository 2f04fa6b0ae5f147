"""A file system with little room, which goes with the test that it was made for."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

#: Mounts it, and unmounts it once its starter closes the input, however that ends.
GUARD = """
mount -t tmpfs -o "size=$1,mode=0700" tmpfs "$2" && echo || exit 1
read -r _
umount --lazy "$2"
"""


@contextmanager
def small_disk(path: Path, size: str) -> Iterator[None]:
    """Mount a file system of this size on a new directory, if this user may."""
    path.mkdir(mode=0o700)
    # In a session of its own: a signal that ends a test run must not end the guard.
    with subprocess.Popen(
        ["sh", "-c", GUARD, "sh", size, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as guard:
        assert guard.stdout is not None
        if os.geteuid() or not guard.stdout.readline():
            pytest.skip("only root can make a small disk")
        yield
    assert guard.returncode == 0
