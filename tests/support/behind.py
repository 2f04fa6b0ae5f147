"""Programs behind walls, in the directories of sessions, for tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.timeouts import BOUND

from samovard.agent import launch
from samovard.agent.home import Homes
from samovard.agent.isolation import ladder, view
from samovard.agent.isolation.walls import Mechanism, Walls

ENVIRON = {"LANG": "C.UTF-8", "PATH": "/usr/bin:/bin"}
A, B = "a" * 32, "b" * 32
WALLED = [Mechanism.BUBBLEWRAP, Mechanism.LANDLOCK]


def walls(mechanism: Mechanism, *seen: Path) -> Walls:
    """Return walls of a rung, with what the launcher needs and some more paths."""
    made = ladder.walls_of(mechanism, (*view.launchers(), *seen))
    if mechanism is Mechanism.BUBBLEWRAP and made.bubblewrap is None:
        if "CI" in os.environ:
            pytest.fail("bubblewrap is not installed")
        pytest.skip("bubblewrap is not installed")
    return made


@contextmanager
def spawned(
    around: Walls,
    homes: Homes,
    name: str,
    *command: str,
    limits: launch.ProcessLimits | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Spawn a program in a session's directory; at the end it is killed."""
    home = homes.prepare(name)
    directory = homes.open_work(name)
    try:
        with around.around(home) as enclosure:
            child = launch.spawn(
                Path(command[0]),
                command[1:],
                ENVIRON,
                directory=directory,
                limits=limits or launch.ProcessLimits(),
                enclosure=enclosure,
            )
    finally:
        os.close(directory)
    with child:
        try:
            yield child
        finally:
            child.kill()


def said(around: Walls, homes: Homes, line: str, name: str = A) -> str:
    """Return what a shell behind walls prints, its errors too."""
    with spawned(around, homes, name, "/bin/sh", "-c", f"exec 2>&1; {line}") as child:
        output, errors = child.communicate(timeout=BOUND)
    assert errors == b""
    return output.decode()


def python(code: str) -> str:
    """Return a shell's line that runs Python."""
    return f"{os.path.realpath(sys.executable)} -I -S -c '{code}'"
