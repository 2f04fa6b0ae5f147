"""What the kernel says that a process does. To be told: nothing is decided by it."""

import os
from pathlib import Path

from samovard.core.process import Condition

UNKNOWN = "unknown"


def condition(pid: int) -> Condition:
    """Gives the state of a process and the kernel function that its main thread waits in.

    Either is `unknown` where the kernel does not tell: the process is gone, or hidden.
    """
    return Condition(_state(pid), _wait_channel(pid))


def _state(pid: int) -> str:
    for line in _text(pid, "status").splitlines():
        name, _, value = line.partition(":")
        if name == "State":
            return value.strip()
    return UNKNOWN


def _wait_channel(pid: int) -> str:
    name = _text(pid, "wchan").strip()
    return UNKNOWN if name in ("", "0") else name  # `0`: it runs, or the kernel hides it


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def resident(pid: int) -> int:
    """Gives the bytes of memory that a process has, 0 of one that is gone."""
    pages = _text(pid, "statm").split()[1:2]
    return int(pages[0]) * os.sysconf("SC_PAGE_SIZE") if pages else 0
