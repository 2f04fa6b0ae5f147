"""The lock of the state directory: one server or one command uses it at a time.

Knows nothing of what is kept in it.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class CannotStart(Exception):
    """The service cannot run here: one sentence that says why."""


@contextmanager
def state_directory(directory: Path) -> Iterator[IO[str]]:
    """Make the state directory and keep other servers off it. Yield the lock.

    Raise `CannotStart` if it cannot be made or written to, or if another server uses it.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(directory / "lock", "w")  # noqa: SIM115  # closed below
    except OSError as error:
        raise CannotStart(f"{directory}: {error.strerror}: set state.directory") from error
    with file as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotStart(
                f"another samovard uses {directory}: stop it, or set state.directory"
            ) from None
        yield lock
