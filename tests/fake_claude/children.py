"""Start processes that outlive their starter, but not for long."""

from __future__ import annotations

import os
import signal
import sys

LIFE_S = 30
_WAITS = f"import select; select.select([], [], [], {LIFE_S})"


def spawn(
    *,
    setsid: bool = False,
    holds_stdout: bool = False,
    hides_marker: bool = False,
    orphan: bool = False,
) -> int:
    """Start a child that lives `LIFE_S` seconds and return its pid.

    `setsid`: in a session of its own; `holds_stdout`: with our stdout and stderr, else with
    neither; `hides_marker`: with an empty environment; `orphan`: its parent is gone.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_child(tell, setsid=setsid, holds=holds_stdout, hides=hides_marker, orphan=orphan)
    os.close(tell)
    if orphan:
        os.waitpid(pid, 0)
    with os.fdopen(told, "rb") as pipe:
        return int(pipe.read())


def _become_child(tell: int, *, setsid: bool, holds: bool, hides: bool, orphan: bool) -> None:
    try:
        if setsid:
            os.setsid()
        if orphan and os.fork():
            os._exit(0)
        signal.alarm(LIFE_S)  # if the program cannot be executed any more
        os.write(tell, str(os.getpid()).encode())
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0,) if holds else (0, 1, 2):
            os.dup2(null, number)
        environment = {} if hides else dict(os.environ)
        os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", _WAITS], environment)
    finally:
        os._exit(1)


def swarm(n: int) -> None:
    """Fork n children that live `LIFE_S` seconds and start no program, each in a session of its
    own. Half of them have no parent but for a moment.
    """
    for number in range(n):
        if (pid := os.fork()) == 0:
            _wait(orphan=number % 2 == 0)
        if number % 2 == 0:
            os.waitpid(pid, 0)


def _wait(*, orphan: bool) -> None:
    try:
        os.setsid()
        if orphan and os.fork():
            os._exit(0)
        for number in range(3):
            os.close(number)
        signal.alarm(LIFE_S)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pause()
    finally:
        os._exit(1)


def kill(pid: int) -> None:
    """Kill a child of ours and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
