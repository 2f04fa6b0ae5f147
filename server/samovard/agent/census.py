"""Count the processes and threads of agents' trees, and kill a tree.

One look at `/proc` is for all trees. It may take long on a machine with many processes, and a
process that ends may keep it waiting: so it is for a thread of its own. Knows no bounds.
"""

import errno
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from samovard.agent.process_tree import kill_all, marker_now, reaped
from samovard.agent.procfs import ProcessEntry, entries

GONE = 2.0  # seconds to wait until a tree that was killed is gone
_POLL = 0.01
_SPARE = 2  # descriptors that a signal takes at once; a look takes one
_PROC = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Census:
    """A repeated look at the trees of agents. `roots` are their markers by the main process's pid.

    A tree is what descends from the main process, what was in the tree at an earlier look, and what
    this process adopted that has the tree's session or its marker. For one thread at a time.
    """

    def __init__(self) -> None:
        # Start time and marker of everything that was in a tree at the last look, by pid.
        self._seen: dict[int, tuple[int, str]] = {}
        # Start time of each main process, by marker: once it is gone, its pid may be another's.
        self._begun: dict[str, int] = {}
        self._spare: list[int] = []
        self._keep()

    def close(self) -> None:
        """Close the spare descriptors. Idempotent."""
        while self._spare:
            os.close(self._spare.pop())

    def count(self, roots: Mapping[int, str]) -> dict[int, int]:
        """Return how many processes and threads each tree has, by the pid of its main process.

        Raise `OSError` if none of them can be seen, for lack of a descriptor.
        """
        with self._descriptors():
            processes = self._look(roots)
        counts = Counter[str]()
        for pid, (_, marker) in self._seen.items():
            counts[marker] += max(processes[pid].threads, 1)
        return {pid: counts[marker] for pid, marker in roots.items()}

    def kill(self, roots: Mapping[int, str], pid: int) -> None:
        """Kill the whole tree of a main process, which is left to its owner to reap.

        Wait for a limited time until nothing else is left of it. Raise `OSError` as `count` does.
        """

        def members() -> dict[int, int]:
            self._look(roots)
            seen = self._seen.items()
            return {pid: ticks for pid, (ticks, marker) in seen if marker == wanted}

        wanted, deadline = roots[pid], time.monotonic() + GONE
        with self._descriptors():
            kill_all(members)
            while time.monotonic() < deadline and self._left(roots, pid):
                time.sleep(_POLL)

    def _left(self, roots: Mapping[int, str], pid: int) -> bool:
        """Reap what was adopted of a tree. Return True if more than its main process is left."""
        processes = self._look(roots)
        left = [p for p, (_, marker) in self._seen.items() if marker == roots[pid] and p != pid]
        adopted = [p for p in left if processes[p].zombie and processes[p].parent == os.getpid()]
        return sum(map(reaped, adopted)) < len(left)

    def _look(self, roots: Mapping[int, str]) -> dict[int, ProcessEntry]:
        processes = entries()
        if os.getpid() not in processes:
            raise OSError(errno.EMFILE, "no process can be looked at")
        owners = self._known(processes, roots)
        children: dict[int, list[int]] = {}
        for pid, entry in processes.items():
            children.setdefault(entry.parent, []).append(pid)
        pending = list(owners)
        while pending:
            above = pending.pop()
            fresh = [pid for pid in children.get(above, ()) if pid not in owners]
            owners.update(dict.fromkeys(fresh, owners[above]))
            pending += fresh
        self._seen = {pid: (processes[pid].ticks, marker) for pid, marker in owners.items()}
        return processes

    def _known(
        self, processes: Mapping[int, ProcessEntry], roots: Mapping[int, str]
    ) -> dict[int, str]:
        """Return the markers of what need not descend from anything to be in a tree, by pid."""
        markers = set(roots.values())
        self._begun = {marker: t for marker, t in self._begun.items() if marker in markers}
        owners = {}
        for pid, marker in roots.items():
            entry = processes.get(pid)
            if entry and self._begun.setdefault(marker, entry.ticks) == entry.ticks:
                owners[pid] = marker
        for pid, (ticks, marker) in self._seen.items():
            entry = processes.get(pid)
            if marker in markers and entry is not None and entry.ticks == ticks:
                owners.setdefault(pid, marker)
        for pid, entry in processes.items():
            if entry.parent == os.getpid() and pid not in owners:
                found = roots.get(entry.session) or marker_now(pid)
                if found in markers:
                    owners[pid] = found
        return owners

    @contextmanager
    def _descriptors(self) -> Iterator[None]:
        """Give up the spare descriptors for a look, so that there are some for it."""
        self.close()
        try:
            yield
        finally:
            self._keep()

    def _keep(self) -> None:
        with suppress(OSError):  # the next look may have better luck
            while len(self._spare) < _SPARE:
                self._spare.append(os.open("/proc", _PROC))
