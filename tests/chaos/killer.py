"""SIGKILL to processes of the pool in each of their states, and looks at what dies."""

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from random import Random
from typing import Any

from chaos.plan import KILL_EVERY
from chaos.tally import Tally
from samovard.core.pool.pool import Pool
from samovard.core.pool.states import ProcessState

#: In each of these a process is killed.
STATES = (
    ProcessState.STARTING,
    ProcessState.IDLE,
    ProcessState.LEASED,
    ProcessState.RUNNING,
    ProcessState.INTERRUPTING,
    ProcessState.SETTLING,
    ProcessState.STOPPING,
)
LOOK = 0.001  # seconds between two looks for a process to kill
SAMPLE = 0.25  # seconds between two looks for zombies
OLD = 2.0  # seconds after which a zombie should have been reaped


class Killer:
    """What kills a process for every seventh turn. `run` and `zombies` go on until cancelled."""

    def __init__(self, pool: Pool, seed: int, tally: Tally) -> None:
        self._pool = pool
        self._draw = Random(f"{seed} kills")
        self._tally = tally
        self._killed: dict[str, float] = {}
        self._watching: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Kill one process after the other, each in the state whose turn it is."""
        for number, state in enumerate(itertools.cycle(STATES), 1):
            while self._tally.counts["turns"] < number * KILL_EVERY or not self._kill(state):
                await asyncio.sleep(LOOK)

    def _kill(self, state: ProcessState) -> bool:
        found = [process for process in self._pool if process.state is state and process.handle.pid]
        if not found:
            return False
        victim = self._draw.choice(found)
        # It is a child that this process has not waited for: its number is not another's yet.
        os.kill(victim.handle.pid, signal.SIGKILL)
        self._tally.killed[state.value] += 1
        if state is ProcessState.RUNNING:
            self._killed[victim.process_id] = time.monotonic()
        return True

    def told(self, process_id: str, tally: Tally) -> None:
        """Called when a caller is told that its turn's process has died."""
        if (since := self._killed.pop(process_id, None)) is not None:
            tally.times["death_to_status"].append(time.monotonic() - since)

    def watch(self, look: Coroutine[Any, Any, None]) -> None:
        """Run a look at a process beside all else."""
        task = asyncio.create_task(look)
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)

    async def watched(self) -> None:
        """Wait for all looks at processes."""
        await asyncio.gather(*self._watching)

    async def zombies(self) -> None:
        """Count children that are dead for so long that they should have been reaped."""
        since: dict[str, float] = {}
        while True:
            now = time.monotonic()
            since = {pid: since.get(pid, now) for pid in dead_children()}
            for pid, first in since.items():
                if now - first > OLD:
                    self._tally.count("old_zombies", pid)
            await asyncio.sleep(SAMPLE)


def dead_children() -> list[str]:
    """Return the pids of this process's children that wait to be reaped."""
    return [pid for pid, state in children().items() if state == "Z"]


def children() -> dict[str, str]:
    """Return the state of each child of this process, by pid."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent, *_ = path.read_text().rpartition(")")[2].split()
        except OSError:  # it is gone
            continue
        if int(parent) == os.getpid():
            found[path.parent.name] = state
    return found
