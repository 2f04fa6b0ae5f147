"""Starts processes, each as work of the pool's scope: losing a caller never loses a start.

Owns a process until it is ready or is known not to be. Decides nothing.
"""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from samovard.core.errors import NoProcess, SamovarError
from samovard.core.pool.pooled_process import PooledProcess
from samovard.core.turn import telemetry
from samovard.telemetry.recorder import Recorder

_log = structlog.get_logger("samovard.pool")


class Spawner:
    """Starts processes; `on_started` hears of each whether it is ready, or why it is not."""

    def __init__(
        self,
        spawn: Callable[[Coroutine[Any, Any, None], str], object],
        recorder: Recorder,
        on_started: Callable[[PooledProcess, SamovarError | None], None],
    ) -> None:
        self._spawn = spawn
        self._recorder = recorder
        self._on_started = on_started

    def start(self, process: PooledProcess) -> None:
        """Starts a process."""
        self._spawn(self._start(process), f"start {process.process_id}")

    async def _start(self, process: PooledProcess) -> None:
        error: SamovarError | None = None
        try:
            await process.handle.start()
        except SamovarError as failure:
            error = failure
        except Exception:
            # Whoever waits must hear of it, and the slot must come free.
            _log.exception("defect", **process.ids)
            error = NoProcess("the start failed", cause="start-failed", retry_after=1.0)
        self._recorder.start_ended(telemetry.started(process, error))
        self._on_started(process, error)
