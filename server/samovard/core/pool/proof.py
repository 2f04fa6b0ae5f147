"""Waits for proof that a process is quiet, and no longer than that may take.

Owns a process that was interrupted or settles. Decides nothing: what becomes of one that is
quiet, or is not, is the pool's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from samovard.core.pool.pooled_process import Lease, PooledProcess
from samovard.core.pool.registry import Registry
from samovard.core.pool.states import ProcessState

END_TIMEOUT = 2.0  # T_end: for the end frame behind a result


class Proof:
    """Awaits it of processes; `proven` hears of each that is quiet, `unproven` of any other."""

    def __init__(
        self,
        registry: Registry,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        proven: Callable[[PooledProcess], None],
        unproven: Callable[[PooledProcess], None],
    ) -> None:
        self._registry = registry
        self._spawn = spawn
        self._proven = proven
        self._unproven = unproven

    def interrupt(self, lease: Lease) -> None:
        """Tells the agent to stop the lease's turn, and waits for its proof."""
        process = lease.process
        self._registry.move(process, ProcessState.INTERRUPTING, "interrupted")
        if not lease.turn.followed:
            process.handle.discard()
        proof = process.handle.interrupt()
        self._spawn(self._await(lease, proof), f"interrupt {process.process_id}")

    def settle(self, process: PooledProcess, cause: str) -> None:
        """Gives a process a moment to be quiet by itself."""
        self._registry.move(process, ProcessState.SETTLING, cause)
        loop = asyncio.get_running_loop()
        process.timer = loop.call_later(END_TIMEOUT, self._give_up, process, "end")

    async def _await(self, lease: Lease, proof: Awaitable[bool]) -> None:
        begin = self._registry.clock()
        quiet = await proof
        process = lease.process
        if process.state is not ProcessState.INTERRUPTING or process.epoch != lease.epoch:
            return
        if quiet:
            took = round(1000 * (self._registry.clock() - begin), 3)
            self._registry.tell(process, "turn.interrupted", proof_ms=took)
            process.lose_turn("unproven")  # no effect if it has its report
            self._proven(process)
        else:
            self._give_up(process, "proof")

    def _give_up(self, process: PooledProcess, missing: str) -> None:
        self._registry.tell(process, "quiet.unproven", missing=missing)
        self._unproven(process)
