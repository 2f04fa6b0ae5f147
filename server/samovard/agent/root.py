"""The directory that holds all sessions' directories: found again at each start, and locked.

Knows paths, owners and locks. Knows nothing of what the directory holds.
"""

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import structlog

from samovard.core.errors import Misconfigured
from samovard.settings import Settings
from samovard.settings.checks import MAX_ROOT, length

NOTE = "root"  # in the state directory: the path of the directory that was made elsewhere
PREFIX = ".samovar-"
SHARED = Path("/var/tmp")  # unlike /tmp and the login's directories, it survives a reboot
_SUFFIX = "12345678"  # as long as what `mkdtemp` adds

_log = structlog.get_logger("samovard.root")


def settled(settings: Settings) -> Settings:
    """Return the settings with `agent.root` set to a directory whose path is short enough.

    Must be called with the state directory locked. Raise `Misconfigured` (directory-refused)
    if there is no place for such a directory.
    """
    root = _elsewhere(settings.directory) if _too_long(settings) else settings.root
    agent = settings.agent.model_copy(update={"root": root.absolute()})
    return settings.model_copy(update={"agent": agent})


def found(settings: Settings) -> Path:
    """Return the directory that the last start chose; it may not exist yet."""
    noted = _noted(settings.directory) if _too_long(settings) else None
    return (noted or settings.root).absolute()


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Lock the directory against other services and the age-based cleaning of systemd-tmpfiles.

    Raise `Misconfigured` (directory-refused) if another service uses it.
    """
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise _refused(
            f"another samovard keeps its sessions in {root}: stop it, or set agent.root"
        ) from None
    except OSError:
        _log.debug("root.unlocked")  # NFS cannot lock directories
    try:
        yield
    finally:
        os.close(descriptor)


@contextmanager
def temporary() -> Iterator[Path]:
    """Make a directory whose path is short enough for state and sessions, and remove it at the end.

    It lies in the user's directory for temporary files if that is short, else in /tmp. Raise
    `Misconfigured` (directory-refused) if there is no place for it.
    """
    for place in (Path(tempfile.gettempdir()), Path("/tmp"), SHARED):
        if length(place / f"samovar-{_SUFFIX}" / "s") <= MAX_ROOT:
            with suppress(OSError):
                made = tempfile.TemporaryDirectory(prefix="samovar-", dir=place)
                break
    else:
        raise _refused("no temporary directory can be made: set TMPDIR to a shorter path")
    with made as path:
        yield Path(path)


def _elsewhere(state: Path) -> Path:
    """Return the directory that an earlier start made, or make one and record it."""
    note = state / NOTE
    noted = _noted(state)
    if noted is not None and noted.is_absolute() and length(noted) <= MAX_ROOT and _is_ours(noted):
        return noted
    made = _made(state)
    beside = note.with_suffix(".new")
    beside.write_bytes(os.fsencode(made))
    beside.replace(note)
    if noted is None:
        _log.info("root.made", path=str(made))
    else:
        _log.warning("root.lost", path=str(noted), made=str(made))
    return made


def _too_long(settings: Settings) -> bool:
    return settings.agent.root is None and length(settings.root) > MAX_ROOT


def _noted(state: Path) -> Path | None:
    with suppress(FileNotFoundError):
        return Path(os.fsdecode((state / NOTE).read_bytes()))
    return None


def _is_ours(directory: Path) -> bool:
    """True if it is a directory of this user. Its mode is checked where it is opened."""
    try:
        found = os.lstat(directory)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def _made(state: Path) -> Path:
    # The name is random and new: it cannot have been made, or pointed elsewhere, before.
    for place in _places():
        if length(place / f"{PREFIX}{_SUFFIX}") <= MAX_ROOT:
            with suppress(OSError):
                return Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    raise _refused(
        f"{state / 's'} has more than {MAX_ROOT} bytes, and no directory can be made in the home "
        f"directory or in {SHARED}: set state.directory or agent.root to a shorter path"
    )


def _places() -> Iterator[Path]:
    with suppress(RuntimeError):  # there is no home directory
        yield Path.home().absolute()
    yield SHARED


def _refused(message: str) -> Misconfigured:
    return Misconfigured(message, cause="directory-refused")
