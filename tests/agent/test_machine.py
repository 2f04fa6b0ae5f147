"""What starts need of the machine, looked at."""

import errno
import os
from pathlib import Path

import pytest
from support.file_descriptors import few_descriptors

from samovard.agent.machine import Machine, cause_of, spare_descriptors
from samovard.core.errors import NoProcess


@pytest.fixture
def program(directory: Path) -> Path:
    path = directory / "claude"
    path.write_text("one")
    return path


def machine(directory: Path, *programs: Path) -> Machine:
    return Machine(programs, directory, directory)


def test_a_machine_that_has_everything_fails_no_check(directory: Path, program: Path) -> None:
    """And leaves nothing where it looked."""
    assert machine(directory, program).failing() == ()
    assert [path.name for path in directory.iterdir()] == ["claude"]


def test_a_program_that_is_gone_is_missing(directory: Path, program: Path) -> None:
    """Until it is back."""
    found = machine(directory, program)
    program.unlink()
    assert found.failing() == ("binary-missing",)


def test_a_program_that_is_another_has_changed_until_it_is_taken(
    directory: Path, program: Path
) -> None:
    """Also one of the same size and time of writing: what changed it cannot hide that."""
    found = machine(directory, program)
    before = program.stat()
    program.write_text("two")
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert found.failing() == ("binary-changed",)
    found.take(found.changed())
    assert found.failing() == ()


def test_a_state_directory_that_is_gone_is_not_writable(directory: Path) -> None:
    """The service could note nothing there."""
    state = directory / "state"
    assert machine(state).failing() == ("state-not-writable",)


def test_a_reserve_of_descriptors_is_kept(directory: Path) -> None:
    """32 are for callers, the store and the log, and no start gets them."""
    with few_descriptors(33):  # one for the look
        assert machine(directory).failing() == ()
        spare_descriptors()
    with few_descriptors(32):
        assert "out-of-descriptors" in machine(directory).failing()
        with pytest.raises(NoProcess) as error:
            spare_descriptors()
    assert error.value.cause == "out-of-descriptors"


GIB = 1 << 30


@pytest.mark.parametrize(
    ("size", "free", "files", "free_files", "enough"),
    [
        (10 * GIB, GIB // 2, 100, 1, True),
        (10 * GIB, GIB // 2 - 4096, 100, 1, False),
        (100 * GIB, 2 * GIB, 100, 1, True),
        (100 * GIB, 2 * GIB - 4096, 100, 1, False),
        (10 * GIB, GIB, 100, 0, False),
        (10 * GIB, GIB, 0, 0, True),
    ],
)
def test_room_on_the_disk_is_a_share_of_it_or_two_gibibytes(
    size: int,
    free: int,
    files: int,
    free_files: int,
    enough: bool,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And one file more, where the disk counts them. What root alone may use counts as used."""
    blocks = (4096, 4096, size // 4096, size // 4096, free // 4096, files, free_files, free_files)
    found = os.statvfs_result((*blocks, 0, 255))
    with monkeypatch.context() as patch:
        patch.setattr(os, "statvfs", lambda path: found)
        failing = machine(directory).failing()
    assert failing == (() if enough else ("out-of-disk",))


@pytest.mark.parametrize(
    ("number", "cause"),
    [
        (errno.EMFILE, "out-of-descriptors"),
        (errno.ENOSPC, "out-of-disk"),
        (errno.ENOMEM, "out-of-memory"),
        (errno.EPERM, "start-failed"),
    ],
)
def test_what_a_start_lacked_has_a_name(number: int, cause: str) -> None:
    """Whoever is refused learns what to get more of."""
    assert cause_of(OSError(number, "no")) == cause
