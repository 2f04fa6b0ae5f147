"""Kill an agent with every process that it started, and adopt processes that lose their parent.

A tool of the agent has a session and a process group of its own, so signals to the agent's group do
not reach it. A tree is therefore what descends from the main process, what was once seen to descend
from it, and what has its marker in the environment. Processes are known by pid and start time
together, because a pid may be reused. Knows nothing of sessions, pipes or the order of signals.
"""

import asyncio
import ctypes
import enum
import os
import re
import signal
from collections.abc import Callable, Collection, Container, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from samovard.agent.procfs import (
    DEAD,
    ProcessEntry,
    boot_id,
    child_pids,
    entries,
    entry_of,
    read_bytes,
    start_ticks,
    stat_fields,
)
from samovard.core.errors import Misconfigured

MARKER = "SAMOVAR_PROCESS"

_MARKER_VALUE = re.compile(r"[A-Za-z0-9._-]{1,64}/[A-Za-z0-9._-]{1,64}")
_PR_SET_DUMPABLE = 4
_PR_SET_CHILD_SUBREAPER = 36
# The kernel's limit for one argument or variable is 128 KiB, for all of them 6 MiB.
_ENVIRON_BYTES = 8 * 1024 * 1024
# For a tree that grows while it is stopped: each round stops what the last one found.
_ROUNDS = 16
_POLL = 0.01
# An execve ends within milliseconds; each attempt takes some 20 microseconds.
_ATTEMPTS = 200
_PF_KTHREAD = 0x00200000


class Strangers(enum.Enum):
    """What to do with children of this process that belong to no known agent."""

    LEAVE = "leave"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A process in the machine's ledger; `boot_id` and `ticks` make the pid unique."""

    pid: int
    boot_id: str
    ticks: int


@dataclass(frozen=True, slots=True)
class Leftovers:
    """How many processes were killed, and the pids that were still there at the deadline."""

    killed: int
    left: tuple[int, ...]


def become_subreaper() -> None:
    """Make this process the parent of every descendant that loses its own."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_undumpable() -> None:
    """Close this process's memory and environment to other processes of the same user."""
    _prctl(_PR_SET_DUMPABLE, 0)


def marker(server_id: str, process_id: str) -> str:
    """Return the value of the variable that marks a process and its descendants.

    Raise `Misconfigured` (options-refused).
    """
    value = f"{server_id}/{process_id}"
    if not _MARKER_VALUE.fullmatch(value):
        raise Misconfigured("the marker is not of the expected form", cause="options-refused")
    return value


class Tree:
    """A handle of an agent and everything that descends from it.

    `pidfd` is of the main process and stays the caller's, who also reaps that process. The tree
    must be made before that. Every method may be called at any time and again.
    """

    __slots__ = ("_marker", "_pid", "_pidfd", "_seen")

    def __init__(self, pid: int, pidfd: int, marker: str) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._marker = marker
        # Pid and start time of the main process and of every descendant ever found.
        self._seen = {pid: start_ticks(pid)}

    def __repr__(self) -> str:
        return f"<Tree {self._pid} with {len(self._seen)} seen>"

    def kill(self) -> None:
        """Kill the whole tree.

        First everything is stopped, until a look finds nothing new: a running process could start
        another one between the look and the kill.
        """
        self._signal_main(signal.SIGSTOP)
        kill_all(lambda: self._look(entries()))

    def survivors(self) -> tuple[int, ...]:
        """Return the pids of the tree that still run, the main process's among them."""
        processes = entries()
        return tuple(pid for pid in sorted(self._look(processes)) if not processes[pid].zombie)

    def reap(self) -> int:
        """Reap the tree's dead processes that this process adopted, except the main process.

        Return how many there were.
        """
        count = 0
        processes = entries()
        for pid in self._look(processes):
            entry = processes[pid]
            if pid != self._pid and entry.zombie and entry.parent == os.getpid():
                count += reaped(pid)
                self._seen.pop(pid, None)
        return count

    def _look(self, processes: dict[int, ProcessEntry]) -> dict[int, int]:
        roots = {p for p, ticks in self._seen.items() if _is(processes, p, ticks)}
        adopters = _line(processes, os.getpid())
        # A process that lost its parent is now a child of this one or, if this process is no
        # subreaper, of one above it. A dead one has no marker any more, but a session, whose pid
        # the main process has until it is reaped. The first process of a PID namespace is dead as
        # soon as the main one is.
        for pid, entry in processes.items():
            orphan = entry.parent in adopters and pid not in adopters and pid not in roots
            ours = entry.session == self._pid or _is_adopted_dead(pid, entry)
            if orphan and (ours or _marker_of(pid) == self._marker):
                roots.add(pid)
        members = {pid: processes[pid].ticks for pid in _descendants(processes, roots)}
        main = {self._pid: self._seen[self._pid]}
        self._seen = members | main
        return members

    def _signal_main(self, number: int) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)


def kill_all(look: Callable[[], Mapping[int, int]]) -> None:
    """Stop processes until a look finds no others, then kill them. `look` returns their start
    times by pid.
    """
    stopped: dict[int, int] = {}
    for _ in range(_ROUNDS):
        fresh = {pid: ticks for pid, ticks in look().items() if stopped.get(pid) != ticks}
        if not fresh:
            break
        for pid, ticks in fresh.items():
            _signal(pid, ticks, signal.SIGSTOP)
        stopped.update(fresh)
    for pid, ticks in stopped.items():
        _signal(pid, ticks, signal.SIGKILL)


def _is_adopted_dead(pid: int, entry: ProcessEntry) -> bool:
    """True if a dead child was adopted, so that this process alone can reap it.

    A tool's child whose parent died first has neither marker nor a session that is known here. A
    child that this process started itself has its session, or one of its own.
    """
    return entry.zombie and entry.parent == os.getpid() and entry.session not in (pid, os.getsid(0))


def sweep(strangers: Strangers, live: Container[str], spared: Container[int]) -> int:
    """Kill and reap the children of this process that belong to nothing alive.

    A child without a marker belongs to nothing: where strangers are killed, it is.
    `live` are the markers of live processes, `spared` the pids of every child that this process
    started itself. Return how many were killed; the next sweep reaps them. Must not be called
    between a spawn and its registration.
    """
    if strangers is Strangers.LEAVE:
        return 0
    killed = 0
    for pid in child_pids():
        entry = entry_of(pid)
        if entry is None or entry.parent != os.getpid() or pid in spared:
            continue
        if entry.zombie:
            reaped(pid)
        elif (found := _marker_of(pid)) is not None and found not in live:
            killed += _signal(pid, entry.ticks, signal.SIGKILL)
    return killed


async def kill_leftovers(
    server_ids: Collection[str], rows: Iterable[LedgerRow], *, within: float = 3.0
) -> Leftovers:
    """Kill what earlier servers left on this machine: by marker, by ledger, and their descendants.

    `server_ids` name the earlier servers of this instance. Repeat until nothing is left, for at
    most `within` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    boot = boot_id()
    known = {row.pid: row.ticks for row in rows if row.boot_id == boot}
    killed: set[tuple[int, int]] = set()
    while True:
        found = _leftovers(server_ids, known)
        if not found or loop.time() >= deadline:
            return Leftovers(len(killed), tuple(sorted(found)))
        for pid, ticks in found.items():
            if _signal(pid, ticks, signal.SIGKILL):
                killed.add((pid, ticks))
        known |= found
        await asyncio.sleep(_POLL)


def _leftovers(server_ids: Collection[str], known: dict[int, int]) -> dict[int, int]:
    processes = entries()
    roots = {pid for pid, ticks in known.items() if _is(processes, pid, ticks)}
    for pid in processes:
        if pid not in roots and (_marker_of(pid) or "").partition("/")[0] in server_ids:
            roots.add(pid)
    # This service may itself run below an agent: neither it nor its ancestors are leftovers.
    members = _descendants(processes, roots - _line(processes, os.getpid()))
    return {pid: processes[pid].ticks for pid in members if not processes[pid].zombie}


def _is(processes: dict[int, ProcessEntry], pid: int, ticks: int) -> bool:
    entry = processes.get(pid)
    return entry is not None and entry.ticks == ticks


def _line(processes: dict[int, ProcessEntry], pid: int) -> set[int]:
    line: set[int] = set()
    while pid in processes and pid not in line:
        line.add(pid)
        pid = processes[pid].parent
    return line


def _descendants(processes: dict[int, ProcessEntry], roots: set[int]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, entry in processes.items():
        children.setdefault(entry.parent, []).append(pid)
    found, pending = set(roots), list(roots)
    while pending:
        fresh = [pid for pid in children.get(pending.pop(), ()) if pid not in found]
        found.update(fresh)
        pending += fresh
    return found


def _marker_of(pid: int) -> str | None:
    """Return the marker; empty if none can be read, None if it is not known yet."""
    bare = 0
    for _ in range(_ATTEMPTS):
        found, fields = marker_now(pid), stat_fields(pid)
        if found is not None:
            return found
        if _is_closed(pid, fields):
            return ""
        # In the middle of an execve a process has no environment, and for a moment an empty one.
        # Only a process that was started with none stays so.
        bare += _is_bare(fields)
        os.sched_yield()
    return "" if bare == _ATTEMPTS else None


def marker_now(pid: int) -> str | None:
    """Return the marker; empty if the process has none, None if it has no environment now."""
    name = f"{MARKER}=".encode()
    environ = read_bytes(f"/proc/{pid}/environ", _ENVIRON_BYTES)
    for variable in environ.split(b"\0"):
        if variable.startswith(name):
            return variable.removeprefix(name).decode("ascii", "replace")
    return "" if environ else None


def _is_bare(fields: list[bytes]) -> bool:
    """True if a process has an empty environment."""
    start, end = fields[47:49]
    return start == end != b"0"


def _is_closed(pid: int, fields: list[bytes]) -> bool:
    """True if a process is dead, the kernel's or not ours to read."""
    if len(fields) < 49 or fields[0] in DEAD or int(fields[6]) & _PF_KTHREAD:
        return True
    try:
        os.close(os.open(f"/proc/{pid}/environ", os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return True
    return False


def _signal(pid: int, ticks: int, number: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        # Asked for after the descriptor holds the process: so it is the one that was meant.
        entry = entry_of(pid)
        if entry is None or entry.ticks != ticks or entry.zombie:
            return False
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        os.close(pidfd)
    return True


def reaped(pid: int) -> bool:
    """Reap a child of this process. Return True if it was dead."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
    except ChildProcessError:
        return False


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *[ctypes.c_ulong(n) for n in (value, 0, 0, 0)]) == -1:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
