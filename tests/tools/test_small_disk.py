"""The small disk of tests: nothing of it outlives them."""

import subprocess
import sys
from pathlib import Path

from support.small_disk import small_disk
from support.timeouts import BOUND

#: Holds a small disk until its input ends.
HOLDER = """
import pathlib, sys
sys.path.append(sys.argv[1])
from support.small_disk import small_disk
with small_disk(pathlib.Path(sys.argv[2]), "1M"):
    print(flush=True)
    sys.stdin.read()
"""


def test_it_is_there_until_it_is_left(directory: Path) -> None:
    """Then nothing is mounted any more."""
    disk = directory / "disk"
    with small_disk(disk, "1M"):
        assert disk.is_mount()
    assert not disk.is_mount()


def test_it_goes_with_a_run_that_is_killed(directory: Path) -> None:
    """Nothing is mounted once its starter was killed."""
    disk = directory / "disk"
    with small_disk(directory / "may", "1M"):  # skips where nobody may
        command = [sys.executable, "-c", HOLDER, str(Path(__file__).parents[1]), str(disk)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline()
            assert disk.is_mount()
            holder.kill()
            holder.communicate(timeout=BOUND)  # the guard holds stderr until it has unmounted
        assert not disk.is_mount()
