"""Carries out what the pool decides: starts processes, interrupts, settles, ends and reaps them.

Each is work in the background, so that losing a caller never loses a process; each is done once.
Decides nothing: what becomes of a process that is ready, quiet, unproven or gone is its
listener's. It owns a process that starts, stops, is in quarantine or has exited.
"""

import asyncio
from collections.abc import Awaitable
from typing import Protocol

import structlog

from samovard.core.errors import NoProcess, SamovarError
from samovard.core.pool import telemetry
from samovard.core.pool.background import BackgroundWork, guarded
from samovard.core.pool.pooled_process import Lease, PooledProcess
from samovard.core.pool.registry import Registry
from samovard.core.pool.states import ProcessState
from samovard.core.process import Agents
from samovard.telemetry.recorder import Recorder

END_TIMEOUT = 2.0  # T_end, seconds: for the end frame behind a result
STOP_AGAIN = 5.0  # seconds from one look at a process that survived SIGKILL to the next

_log = structlog.get_logger("samovard.pool")


class SupervisorListener(Protocol):
    """Decides what becomes of a process. Every method returns at once and never raises."""

    def on_started(self, process: PooledProcess, error: SamovarError | None) -> None:
        """Called when a process is ready, or with why it is not."""

    def on_proven(self, process: PooledProcess) -> None:
        """Called when a process that was interrupted is proven quiet."""

    def on_unproven(self, process: PooledProcess) -> None:
        """Called when the proof of an interrupted or settling process did not come in time."""

    def on_reaped(self, process: PooledProcess) -> None:
        """Called when nothing is left of a process and its place is free."""


class Supervisor:
    """Starts, interrupts, settles, ends and reaps the pool's processes."""

    def __init__(
        self,
        agents: Agents,
        registry: Registry,
        background: BackgroundWork,
        recorder: Recorder,
        listener: SupervisorListener,
    ) -> None:
        self._agents = agents
        self._registry = registry
        self._background = background
        self._recorder = recorder
        self._listener = listener

    def start(self, process: PooledProcess) -> None:
        """Start a process."""
        self._background.spawn(self._start(process), f"start {process.process_id}")

    async def _start(self, process: PooledProcess) -> None:
        error: SamovarError | None = None
        try:
            await process.handle.start()
        except SamovarError as failure:
            error = failure
        except Exception:
            # The turns that wait for it must hear of it, and the slot must come free.
            _log.exception("defect", **process.ids)
            error = NoProcess("the start failed", cause="start-failed", retry_after=1.0)
        self._recorder.start_ended(telemetry.started(process, error))
        self._listener.on_started(process, error)

    def interrupt(self, lease: Lease) -> None:
        """Tell the agent to stop the lease's turn, and wait for proof that it is quiet."""
        process = lease.process
        self._registry.move(process, ProcessState.INTERRUPTING, "interrupted")
        if not lease.turn.followed:
            process.handle.discard()
        proof = process.handle.interrupt()
        work = self._await_proof(lease, proof)
        self._background.spawn(work, f"interrupt {process.process_id}")

    async def _await_proof(self, lease: Lease, proof: Awaitable[bool]) -> None:
        begin = self._registry.clock()
        quiet = await proof
        process = lease.process
        if process.state is not ProcessState.INTERRUPTING or process.epoch != lease.epoch:
            return
        if quiet:
            took = round(1000 * (self._registry.clock() - begin), 3)
            self._registry.tell(process, "turn.interrupted", proof_ms=took)
            process.lose_turn("unproven")  # no effect if it has its report
            self._listener.on_proven(process)
        else:
            self._give_up(process, "proof")

    def settle(self, process: PooledProcess, cause: str) -> None:
        """Give a process `END_TIMEOUT` to be quiet by itself."""
        self._registry.move(process, ProcessState.SETTLING, cause)
        loop = asyncio.get_running_loop()
        process.timer = loop.call_later(END_TIMEOUT, self._give_up, process, "end")

    def _give_up(self, process: PooledProcess, missing: str) -> None:
        self._registry.tell(process, "quiet.unproven", missing=missing)
        self._listener.on_unproven(process)

    def end(self, process: PooledProcess, how: str) -> None:
        """Have a process reaped, once: two who do it would take the next one's place."""
        if not process.ending:
            process.ending = True
            self._background.spawn(self._reap(process), f"{how} {process.process_id}")

    async def _reap(self, process: PooledProcess) -> None:
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
        self._listener.on_reaped(process)

    def _quarantine(self, process: PooledProcess) -> None:
        if process.state is ProcessState.STOPPING:
            self._registry.tell(process, "process.quarantined")
            self._registry.move(process, ProcessState.QUARANTINED, "survived-kill")
