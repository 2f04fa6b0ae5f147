"""How much memory agents have, with all that descends from them.

Knows `/proc`. A look at it takes some 20 microseconds for each process of the machine: so it is
made in a thread, for whoever asks and never for a turn, and its answer is used for a while.
"""

import asyncio
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

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
