"""The supervisor, which starts, interrupts, settles, ends and reaps processes for the pool.

Each of these is background work, so that a cancelled caller never loses a process, and each is
done once. The supervisor decides nothing: its listener decides what to do with a process that is
ready, quiet, unproven or gone. It owns processes that start, stop, are quarantined or have exited.
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

END_TIMEOUT = 2.0  # T_end, seconds: how long to wait for the end frame after a result
STOP_AGAIN = 5.0  # seconds between two checks of a process that survived SIGKILL

_log = structlog.get_logger("samovard.pool")


class SupervisorListener(Protocol):
    """The receiver of the supervisor's results. Its methods must return at once and not raise."""

    def on_started(self, process: PooledProcess, error: SamovarError | None) -> None:
        """Called when a process is ready, or with the error that its start failed with."""

    def on_proven(self, process: PooledProcess) -> None:
        """Called when an interrupted process is proven quiet."""

    def on_unproven(self, process: PooledProcess) -> None:
        """Called when an interrupted or settling process was not proven quiet in time."""

    def on_reaped(self, process: PooledProcess) -> None:
        """Called when a process and its descendants are gone and its slot is free."""


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
            # Not raised: the turns that wait for it must get an error, and its slot must be freed.
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
        # Not in the task: the agent is told in the same step in which the state changes.
        proof = process.handle.interrupt()
        work = self._await_proof(lease, proof)
        self._background.spawn(work, f"interrupt {process.process_id}")

    async def _await_proof(self, lease: Lease, proof: Awaitable[bool]) -> None:
        begin = self._registry.clock()
        quiet = await proof
        process = lease.process
        # A late answer: the process was stopped, or serves another turn by now.
        if process.state is not ProcessState.INTERRUPTING or process.epoch != lease.epoch:
            return
        if quiet:
            took = round(1000 * (self._registry.clock() - begin), 3)
            self._registry.tell(process, "turn.interrupted", proof_ms=took)
            # Quiet, but perhaps without a report: then the turn is lost. No effect if it has one.
            process.lose_turn("unproven")
            self._listener.on_proven(process)
        else:
            self._give_up(process, "proof")

    def settle(self, process: PooledProcess, cause: str) -> None:
        """Wait `END_TIMEOUT` seconds for a process to become quiet by itself."""
        self._registry.move(process, ProcessState.SETTLING, cause)
        loop = asyncio.get_running_loop()
        process.timer = loop.call_later(END_TIMEOUT, self._give_up, process, "end")

    def _give_up(self, process: PooledProcess, missing: str) -> None:
        self._registry.tell(process, "quiet.unproven", missing=missing)
        self._listener.on_unproven(process)

    def end(self, process: PooledProcess, how: str) -> None:
        """Stop and reap a process in the background. Do nothing if this has begun already."""
        # Once: a second reaper would free the slot of the session's next process.
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
                # The loop must go on: otherwise the slot would never become free.
                self._registry.tell(process, "loop.failed", loop="reap", exc_info=True)
            await asyncio.sleep(STOP_AGAIN)
        if not process.kept:
            # Before its slot is free: the session's next process uses the same home.
            await guarded(self._agents.remove_home(process.launch.home), "remove a home")
        self._registry.remove(process)
        process.reaped.set_result(None)
        _log.debug("process.reaped", **process.ids)
        self._listener.on_reaped(process)

    def _quarantine(self, process: PooledProcess) -> None:
        # Once, and not in EXITED, where only descendants of the process survive.
        if process.state is ProcessState.STOPPING:
            self._registry.tell(process, "process.quarantined")
            self._registry.move(process, ProcessState.QUARANTINED, "survived-kill")
