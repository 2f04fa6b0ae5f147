"""What is read of a process, from fields that no test can wait for."""

import os
import subprocess

import pytest

from samovard.agent import process_tree


@pytest.mark.parametrize(
    ("start", "end", "bare"),
    [(b"4096", b"4096", True), (b"4096", b"4100", False), (b"0", b"0", False)],
)
def test_a_process_without_an_environment_has_one_of_no_length(
    start: bytes, end: bytes, bare: bool
) -> None:
    """Between two programs a process has none at all."""
    assert process_tree._is_bare([b"S", *[b"7"] * 46, start, end]) is bare


@pytest.mark.parametrize(("flags", "closed"), [(b"4194560", False), (b"2129984", True)])
def test_a_thread_of_the_kernel_has_no_environment(flags: bytes, closed: bool) -> None:
    """It is known by a flag."""
    fields = [b"S", *[b"0"] * 5, flags, *[b"0"] * 42]
    with subprocess.Popen(["/bin/sleep", "60"]) as child:  # this process may be closed by now
        assert process_tree._is_closed(child.pid, fields) is closed
        child.kill()


def test_what_is_nobodys_child_is_not_reaped() -> None:
    """Somebody else may have taken its exit status."""
    assert process_tree.reaped(os.getpid()) is False
