"""Fixtures that all tests share: one temporary root, and checks of what a run leaves behind."""

import contextlib
import ctypes
import gc
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from support import shared
from support.starter_environment import settle

# Before any module imports grpc, which reads variables then.
settle()
# Objects made by the collection stay to the end: a fifth of the time was spent searching them for
# garbage.
gc.set_threshold(50_000)

PR_SET_CHILD_SUBREAPER = 36

settings.register_profile("samovar", deadline=None, database=None)
settings.load_profile("samovar")


ROOT = pytest.StashKey[Path]()
BEGIN = pytest.StashKey[float]()
PYTEST = "pytest"  # pytest's own temporary directories, which it removes itself
HOME = "home"  # of programs that get this process's variables
SHARED = "shared"  # of all workers of a run
COLLECT_AFTER = 2_000  # as in a service
BUDGET = 10 * 60.0  # seconds that a whole run may take


def pytest_configure(config: pytest.Config) -> None:
    """Give the run one short temporary directory, in which all others are made."""
    config.stash[BEGIN] = time.monotonic()
    root = config.stash[ROOT] = Path(tempfile.mkdtemp(prefix="sv-", dir="/tmp"))
    root.chmod(0o711)  # some tests continue as another user
    tempfile.tempdir = os.environ["TMPDIR"] = str(root)
    config.option.basetemp = str(root / PYTEST)
    home = root / HOME
    home.mkdir()
    os.environ["HOME"] = str(home)
    shared.directory = Path(getattr(config, "workerinput", {}).get(SHARED, root / SHARED))
    shared.directory.mkdir(exist_ok=True)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the values that all workers of a run share to a worker."""
    node.workerinput[SHARED] = str(shared.directory)


def pytest_collection_finish() -> None:
    """Keep the garbage collector off the objects that were imported and collected."""
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the temporary directory."""
    shutil.rmtree(config.stash[ROOT])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print how long the run took, beside its budget. The runner's own lines follow."""
    seconds = time.monotonic() - config.stash[BEGIN]
    terminalreporter.write_line(f"{spoken(seconds)} of a budget of {spoken(BUDGET)}")


def spoken(seconds: float) -> str:
    """Return a duration in words, as in `5 min 12 s`."""
    minutes, rest = divmod(round(seconds), 60)
    parts = [f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * bool(rest or not minutes)
    return " ".join(parts)


@pytest.fixture(scope="session", autouse=True)
def root(pytestconfig: pytest.Config) -> Iterator[Path]:
    """Yield the run's directory.

    At its end no process may use it, and only pytest's files are in it.
    """
    path = pytestconfig.stash[ROOT]
    yield path
    left = leftovers(path)
    assert not left, f"processes are left: {left}"
    made = {entry.name for entry in path.iterdir()} - {PYTEST, HOME, SHARED}
    assert not made, f"directories are left: {made}"
    assert not listening(), "sockets are left"


@pytest.fixture
def directory(root: Path) -> Iterator[Path]:
    """Yield a short directory of the test's own: a session's path must stay within 80 bytes."""
    path = Path(tempfile.mkdtemp(dir=root, prefix=""))
    yield path
    shutil.rmtree(path)


@pytest.fixture(autouse=True)
def _no_child_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """Check that after each test this process has only the children that it had before."""
    before = children()
    yield
    # A service that ran in this process made it adopt orphans: other tests must not.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
    assert children() <= before, "the test left a child"


def children() -> set[int]:
    """Return the pids of this process's children, including those that were not reaped."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that ended at this moment
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def listening() -> list[str]:
    """Return the sockets on which this process listens."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    ours = {link.removeprefix("socket:[").rstrip("]") for link in links if "socket:" in link}
    rows = Path("/proc/self/net/tcp").read_text().splitlines()[1:]
    return [row for row in rows if row.split()[3] == "0A" and row.split()[9] in ours]


def leftovers(root: Path) -> list[str]:
    """Return the processes whose environment names a directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environ = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes()
        except OSError:
            continue
        if os.fsencode(root) in environ:
            found.append(f"{process.name} {command[:80]!r}")
    return found
