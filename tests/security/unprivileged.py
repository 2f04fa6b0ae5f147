"""Change this process to a plain user's, if it is root's.

Knows Linux. Where Python lies in a directory that only root may enter, the process sees a place of
its own there, in which only Python and this project are.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

PLAIN_USER = 65534
PR_SET_PDEATHSIG = 1  # prctl(2)
CLONE_NEWNS = 0x20000  # unshare(2)
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18  # mount(2)

_libc = ctypes.CDLL(None, use_errno=True)


def become() -> None:
    """Become a user that owns nothing, and end with the starter.

    Where Python cannot be made reachable to that user, as in a container without the right to
    mount, root stays root.
    """
    if os.geteuid() == 0 and _reachable():
        os.setgroups([])
        os.setgid(PLAIN_USER)
        os.setuid(PLAIN_USER)
    # Changing the user has reset what the starter asked for.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _reachable() -> bool:
    """Return True once the plain user can read what runs here."""
    needed = [Path(sys.base_prefix), Path(sys.prefix), Path(__file__).parents[2]]
    closed = {path: above for path in needed if (above := _closed(path))}
    if not closed:
        return True
    try:
        _checked(_libc.unshare(CLONE_NEWNS))
    except PermissionError:
        return False
    _own_place(closed)
    return True


def _closed(path: Path) -> Path | None:
    """Return the uppermost directory above a path that others may not enter."""
    above = (path, *path.parents)
    return next((each for each in reversed(above) if not each.stat().st_mode & 0o001), None)


def _own_place(closed: dict[Path, Path]) -> None:
    """Put an empty place over each closed directory, with the paths in it that are needed."""
    _mount(None, Path("/"), None, MS_REC | MS_PRIVATE)
    kept = {path: os.open(path, os.O_PATH) for path in closed}
    for directory in set(closed.values()):
        _mount(b"none", directory, b"tmpfs", 0, b"mode=0755")
    for path, descriptor in kept.items():
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        _mount(f"/proc/self/fd/{descriptor}".encode(), path, None, MS_BIND)
        os.close(descriptor)


def _mount(
    what: bytes | None, where: Path, kind: bytes | None, flags: int, options: bytes | None = None
) -> None:
    _checked(_libc.mount(what, os.fsencode(where), kind, flags, options))


def _checked(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
