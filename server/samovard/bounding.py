"""The bounds that are looked at while agents run: disk, and processes. Builds them.

Each look has a thread of its own, since a disk may hang, and a machine with many processes is slow.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

from samovard.agent.agents import ClaudeAgents
from samovard.agent.boot import Agent
from samovard.agent.census import Census
from samovard.agent.home import Homes
from samovard.agent.isolation.walls import Walls
from samovard.core.pool.pool import Pool
from samovard.core.pool.process_bounds import ProcessBounds
from samovard.core.sessions.directory import Directory
from samovard.core.sessions.disk_bounds import DiskBounds
from samovard.settings import Settings
from samovard.store.thread import OneThread
from samovard.telemetry.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Bounds:
    """The jobs that keep agents within their bounds."""

    disk: DiskBounds
    processes: ProcessBounds


class Trees:
    """The trees of a server's agents, looked at in a thread."""

    def __init__(self, agents: ClaudeAgents, census: Census, thread: OneThread) -> None:
        self._agents = agents
        self._census = census
        self._thread = thread

    async def count(self, roots: Mapping[int, str]) -> Mapping[int, int]:
        """Return how many processes and threads each tree has."""
        marked = self._marked(roots)
        return await self._thread.run(lambda: self._census.count(marked))

    async def kill(self, roots: Mapping[int, str], pid: int) -> None:
        """Kill a whole tree."""
        marked = self._marked(roots)
        await self._thread.run(lambda: self._census.kill(marked, pid))

    def _marked(self, roots: Mapping[int, str]) -> dict[int, str]:
        return {pid: self._agents.marker_of(process_id) for pid, process_id in roots.items()}


@contextmanager
def bounding(
    settings: Settings,
    agent: Agent,
    homes: Homes,
    directory: Directory,
    pool: Pool,
    recorder: Recorder,
) -> Iterator[Bounds]:
    """Yield the bounds, whose threads run until the block is left."""
    with (
        OneThread("disk", daemon=True) as disk,
        OneThread("processes", daemon=True) as thread,
        closing(Census()) as census,
    ):
        yield Bounds(
            DiskBounds(directory, pool, lambda *of: disk.run(lambda: homes.used(*of))),
            ProcessBounds(
                pool,
                Trees(agent.agents, census, thread),
                counted(settings, agent.isolation.walls),
                recorder,
            ),
        )


def counted(settings: Settings, walls: Mapping[str, Walls]) -> dict[str, int]:
    """Return the bound of each profile whose agents' processes must be counted.

    Where an agent has a user namespace the kernel counts, unless it is root's: it bounds no root.
    """
    return {
        name: profile.max_processes
        for name, profile in settings.profiles.items()
        if profile.max_processes is not None
        and (os.geteuid() == 0 or not walls.get(name, Walls()).nested)
    }
