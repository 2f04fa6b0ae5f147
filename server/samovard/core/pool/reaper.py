"""Ends processes, each once, and lets go of them when nothing is left.

Owns a process that stops, is in quarantine or has exited. Decides nothing: who is to end, and
what a free place is good for, is the pool's.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from samovard.core.pool.background import guarded
from samovard.core.pool.pooled_process import PooledProcess
from samovard.core.pool.registry import Registry
from samovard.core.pool.states import ProcessState
from samovard.core.process import Agents

STOP_AGAIN = 5.0  # how often a process that survived SIGKILL is looked at

_log = structlog.get_logger("samovard.pool")


class Reaper:
    """Ends processes as work of the pool's scope; `on_reaped` hears of each that is gone."""

    def __init__(
        self,
        agents: Agents,
        registry: Registry,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        on_reaped: Callable[[PooledProcess], None],
    ) -> None:
        self._agents = agents
        self._registry = registry
        self._spawn = spawn
        self._on_reaped = on_reaped

    def end(self, process: PooledProcess, how: str) -> None:
        """Has a process reaped, once: two who do it would take the next one's place."""
        if not process.ending:
            process.ending = True
            self._spawn(self._finish_off(process), f"{how} {process.process_id}")

    async def _finish_off(self, process: PooledProcess) -> None:
        while True:
            try:
                await process.handle.stop(suspect=process.suspect)
                break
            except TimeoutError:
                process.survives = True
                self._quarantine(process)
            except Exception:
                self._registry.tell(process, "loop.failed", loop="reap", exc_info=True)
            await asyncio.sleep(STOP_AGAIN)
        if not process.kept:
            # Before its place is free: the session's next process would have the same home.
            await guarded(self._agents.remove_home(process.launch.home), "remove a home")
        self._registry.remove(process)
        process.reaped.set_result(None)
        _log.debug("process.reaped", **process.ids)
        self._on_reaped(process)

    def _quarantine(self, process: PooledProcess) -> None:
        if process.state is ProcessState.STOPPING:
            self._registry.tell(process, "process.quarantined")
            self._registry.move(process, ProcessState.QUARANTINED, "survived-kill")
