"""Small process trees for tests, and looks at their processes."""

import os
import select
import subprocess
import time
import uuid
from collections.abc import Callable

from support.timeouts import BOUND

from samovard.agent import process_tree
from samovard.agent.process_tree import Tree


class Started:
    """A small process tree under a marker of its own; `pids` are what it printed."""

    def __init__(self, script: str, lines: int, server_id: str) -> None:
        self.marker = process_tree.marker(server_id, uuid.uuid4().hex)
        environ = {"PATH": "/usr/bin:/bin", process_tree.MARKER: self.marker}
        command = ["/bin/sh", "-c", script]
        self.main = subprocess.Popen(
            command, env=environ, stdout=subprocess.PIPE, start_new_session=True
        )
        self.pidfd = os.pidfd_open(self.main.pid)
        self.tree = Tree(self.main.pid, self.pidfd, self.marker)
        assert self.main.stdout is not None
        self.pids = [int(self.main.stdout.readline()) for _ in range(lines)]

    def killed(self) -> bool:
        """Kill the tree. Return True if that was the last of it."""
        self.tree.kill()
        return not self.tree.survivors()

    def close(self) -> None:
        """Leave nothing behind, whatever the test found."""
        until(self.killed)
        self.main.wait(BOUND)
        until(lambda: not self.tree.reap())
        assert self.main.stdout is not None
        self.main.stdout.close()
        os.close(self.pidfd)


Start = Callable[..., Started]


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, for a limited time."""
    deadline = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        select.select([], [], [], 0.002)


def runs(pid: int) -> bool:
    """True if a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] != b"Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def parent(pid: int) -> int:
    """Return the parent of a process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[1])


def own_children() -> set[int]:
    """Return the children that this process has."""
    path = f"/proc/self/task/{os.getpid()}/children"
    with open(path, encoding="ascii") as file:
        return {int(pid) for pid in file.read().split()}
