"""How much memory agents have, with all that descends from them.

Knows `/proc`. A look at it takes some 20 microseconds for each process of the machine: so it is
made in a thread, for whoever asks and never for a turn, and its answer is used for a while.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from samovard.core.process import Condition

FRESH = 1.0


class Resident:
    """Measures memory, at most once a second while all are known who are asked about."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._measured: Mapping[int, int] = {}
        self._at = float("-inf")

    async def of(self, pids: Collection[int]) -> Mapping[int, int]:
        """Gives the resident bytes of each process's tree, 0 of one that is gone."""
        async with self._lock:
            known = self._measured.keys() >= set(pids)
            if not known or self._clock() - self._at >= FRESH:
                self._measured = await asyncio.to_thread(resident_bytes, pids)
                self._at = self._clock()
            return self._measured


def resident_bytes(pids: Iterable[int]) -> dict[int, int]:
    """Measures the trees of processes now. Pages that two of a tree share count twice."""
    parents: dict[int, int] = {}
    resident: dict[int, int] = {}
    page = os.sysconf("SC_PAGE_SIZE")
    for name in os.listdir("/proc"):
        if name.isdigit() and len(fields := _fields(name)) > 21:
            parents[int(name)] = int(fields[1])
            resident[int(name)] = int(fields[21]) * page
    found = dict.fromkeys(pids, 0)
    for pid, size in resident.items():
        above, steps = pid, 0
        # A look that takes a while may see a pid again, so that its parents never end.
        while above not in found and above in parents and steps < len(parents):
            above, steps = parents[above], steps + 1
        if above in found:
            found[above] += size
    return found


def _fields(pid: str) -> list[bytes]:
    """Gives the fields of a process from the third on, its state: its name may hold anything."""
    try:
        return Path("/proc", pid, "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []


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


DEAD = (b"Z", b"X")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process: its parent's pid, its start in clock ticks since boot, whether it is dead."""

    parent: int
    ticks: int
    zombie: bool


def boot_id() -> str:
    """Names this boot of the machine."""
    return read_bytes("/proc/sys/kernel/random/boot_id", 64).decode().strip()


def start_ticks(pid: int) -> int:
    """Gives when a process started, in clock ticks since boot. Raises `ProcessLookupError`."""
    entry = entry_of(pid)
    if entry is None:
        raise ProcessLookupError(pid)
    return entry.ticks


def child_pids() -> Iterable[int]:
    """Gives at least the children of this process, but for one that came this moment.

    The kernel lists them by thread; to look at all of a machine's processes instead takes
    20 microseconds for each, in which no turn goes on.
    """
    threads = [f"/proc/self/task/{thread}/children" for thread in os.listdir("/proc/self/task")]
    if not os.path.exists(threads[0]):  # a kernel without CONFIG_PROC_CHILDREN
        return entries()
    return [int(pid) for path in threads for pid in read_bytes(path, 1 << 20).split()]


def entries() -> dict[int, ProcessEntry]:
    """Return all processes of the machine, by pid."""
    found = {int(name): entry_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
    return {pid: entry for pid, entry in found.items() if entry is not None}


def entry_of(pid: int) -> ProcessEntry | None:
    """Return a process, None if there is none with that pid."""
    fields = stat_fields(pid)
    if len(fields) < 20:
        return None
    # With its first thread gone and others running, a process looks dead and is not.
    dead = fields[0] in DEAD and int(fields[17]) <= 1
    return ProcessEntry(int(fields[1]), int(fields[19]), dead)


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of a process's `stat` from its state on, none if it is gone."""
    # From the third on, the state: the second, the name, may hold blanks and brackets.
    return read_bytes(f"/proc/{pid}/stat", 4096).rpartition(b")")[2].split()


def read_bytes(path: str, limit: int) -> bytes:
    """Return at most `limit` bytes of a file, none if it is gone or unreadable."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    pieces, size = [], 0
    try:
        while size < limit and (piece := os.read(descriptor, min(65536, limit - size))):
            pieces.append(piece)
            size += len(piece)
    except OSError:
        return b""  # It ended while it was read, or is not ours to read.
    finally:
        os.close(descriptor)
    return b"".join(pieces)
