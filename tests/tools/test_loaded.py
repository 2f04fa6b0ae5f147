"""`tools/loaded.py`: what it starts beside a command ends with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.timeouts import BOUND

LOADED = Path(__file__).parents[2] / "tools" / "loaded.py"
#: Prints which processes its starter has, waits for a line, and ends with 3.
COMMAND = """
import os, pathlib, sys
task = pathlib.Path(f"/proc/{os.getppid()}/task/{os.getppid()}/children")
print(*(pid for pid in task.read_text().split() if int(pid) != os.getpid()), flush=True)
sys.stdin.readline()
sys.exit(3)
"""


@pytest.mark.parametrize("interrupted", [False, True])
def test_loops_end_with_the_command(interrupted: bool) -> None:
    """Two per core run beside it, whether it fails or is interrupted; its exit code is kept."""
    with subprocess.Popen(
        [sys.executable, LOADED, sys.executable, "-c", COMMAND],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdin and child.stdout
        assert "busy loops" in child.stdout.readline()
        loops = child.stdout.readline().split()
        assert len(loops) == 2 * len(os.sched_getaffinity(0))
        if interrupted:
            child.send_signal(signal.SIGTERM)
        else:
            child.stdin.write("\n")
            child.stdin.close()
        assert child.wait(BOUND) == (128 + signal.SIGINT if interrupted else 3)
    assert not [pid for pid in loops if Path(f"/proc/{pid}").exists()]
