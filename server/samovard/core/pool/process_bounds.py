"""The bounds on how many processes and threads an agent has with its tools.

Knows which processes to stop. Knows nothing of how they are counted and killed.
"""

from collections.abc import Mapping
from typing import Protocol

from samovard.core.pool.pool import Pool
from samovard.core.pool.pooled_process import PooledProcess
from samovard.core.pool.states import ProcessState
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder


class Trees(Protocol):
    """The trees of agents, each with a main process. `roots` are process ids by that one's pid."""

    async def count(self, roots: Mapping[int, str]) -> Mapping[int, int]:
        """Return how many processes and threads each tree has, by the pid in `roots`."""

    async def kill(self, roots: Mapping[int, str], pid: int) -> None:
        """Kill a whole tree, and wait for a limited time until it is gone."""


class ProcessBounds:
    """The job that kills the trees that are larger than their profile allows.

    `most` are the bounds by profile; one without a bound is not in it.
    """

    def __init__(
        self, pool: Pool, trees: Trees, most: Mapping[str, int], recorder: Recorder
    ) -> None:
        self._pool = pool
        self._trees = trees
        self._most = most
        self._recorder = recorder

    async def run(self) -> None:
        """Look at the trees of all processes at once, and kill those that are too large."""
        bounded = {p.handle.pid: p for p in self._pool if self._bounded(p)}
        if not bounded:
            return
        roots = {pid: process.process_id for pid, process in bounded.items()}
        counts = await self._trees.count(roots)
        above = {
            pid: process
            for pid, process in bounded.items()
            if counts[pid] > self._most[process.launch.profile] and self._bounded(process)
        }
        for pid, process in above.items():
            self._reached(process, counts[pid])
        for pid in above:
            await self._trees.kill(roots, pid)

    def _bounded(self, process: PooledProcess) -> bool:
        """True if a process has a bound, and its pid cannot be another's yet."""
        lives = process.state is not ProcessState.EXITED and process.handle.pid
        return process.launch.profile in self._most and bool(lives)

    def _reached(self, process: PooledProcess, count: int) -> None:
        """Stop a process before its tree is killed, so that its turn says why."""
        most = self._most[process.launch.profile]
        told = {"state": process.state.value, "processes": count, "most": most}
        incident(self._recorder, "tree.too_large", **process.ids, **told)
        self._pool.stop(process, "process-limit")
