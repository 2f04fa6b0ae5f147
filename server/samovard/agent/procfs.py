"""What the kernel says of processes, read from `/proc`.

Knows Linux. A look at all processes takes some 10 microseconds for each one of the machine. Decides
nothing: what a process is to this service, others know.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from samovard.core.process import Condition

FRESH = 1.0  # seconds for which memory that was measured is not measured again
UNKNOWN = "unknown"
DEAD = (b"Z", b"X")


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process: its parent's pid, its start in clock ticks since boot, whether it is dead.

    `session` is the pid of the process that began its session, `pages` its resident memory in
    pages, `threads` how many it has.
    """

    parent: int
    session: int
    ticks: int
    zombie: bool
    pages: int
    threads: int


def boot_id() -> str:
    """Return the id of this boot of the machine."""
    return read_bytes("/proc/sys/kernel/random/boot_id", 64).decode().strip()


def start_ticks(pid: int) -> int:
    """Return when a process started, in clock ticks since boot. Raise `ProcessLookupError`."""
    entry = entry_of(pid)
    if entry is None:
        raise ProcessLookupError(pid)
    return entry.ticks


def child_pids() -> Iterable[int]:
    """Return at least the children of this process, but for one that came this moment.

    The kernel lists them by thread; to look at all of a machine's processes instead takes
    10 microseconds for each, in which no turn goes on.
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
    if len(fields) < 22:
        return None
    # With its first thread gone and others running, a process looks dead and is not.
    threads = int(fields[17])
    dead = fields[0] in DEAD and threads <= 1
    parent, _, session = map(int, fields[1:4])
    return ProcessEntry(parent, session, int(fields[19]), dead, int(fields[21]), threads)


def nested_pid(pid: int) -> int:
    """Return the pid of the program that bubblewrap runs for `pid`, or `pid` as long as none runs.

    Below it is the first process of its PID namespace, and below that one the program.
    """
    found = pid
    for _ in range(2):
        known = entries()
        below = [each for each, entry in known.items() if entry.parent == found]
        if not below:
            return pid
        # What has lost its parent in the namespace is there too, and came later.
        found = min(below, key=lambda each: (known[each].ticks, each))
    return found


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


def condition(pid: int) -> Condition:
    """Return the state of a process and the kernel function that its main thread waits in.

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


class ResidentMemory:
    """The memory of processes, measured in a thread.

    It is measured at most once a second while all processes are known that are asked for.

    For calls and gauges, never for a turn: a look at `/proc` takes milliseconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = asyncio.Lock()
        self._measured: Mapping[int, int] = {}
        self._at = float("-inf")

    async def of(self, pids: Collection[int]) -> Mapping[int, int]:
        """Return the resident bytes of each process's tree, 0 of one that is gone.

        While `/proc` cannot be listed, since no descriptor is left, that is what was measured last.
        """
        async with self._lock:
            known = self._measured.keys() >= set(pids)
            if not known or self._clock() - self._at >= FRESH:
                with suppress(OSError):
                    self._measured = await asyncio.to_thread(resident_bytes, pids)
                    self._at = self._clock()
            return self._measured


def resident_bytes(pids: Iterable[int]) -> dict[int, int]:
    """Measure the trees of processes now, in bytes by pid. Shared pages count more than once.

    A process counts for the nearest one that is asked for. Raise `OSError` if `/proc` cannot be
    listed.
    """
    processes, page = entries(), os.sysconf("SC_PAGE_SIZE")
    found = dict.fromkeys(pids, 0)
    for pid, process in processes.items():
        above, steps = pid, 0
        # A look that takes a while may see a pid again, so that its parents never end.
        while above not in found and above in processes and steps < len(processes):
            above, steps = processes[above].parent, steps + 1
        if above in found:
            found[above] += process.pages * page
    return found
