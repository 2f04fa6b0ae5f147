"""Closing of sessions, each once, and the list of those that are being closed.

A close is background work, which goes on when its caller is cancelled. In order: the turns of the
session are interrupted and end, its process is stopped and reaped, its home is moved away, its
records are deleted, and it leaves memory. The records go last, so that a session whose close fails
can be closed again.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from samovard.core.errors import Draining, Internal, SamovarError
from samovard.core.pool.background import BackgroundWork
from samovard.core.pool.pool import Pool
from samovard.core.pool.pooled_process import PooledProcess
from samovard.core.process import Agents
from samovard.core.records import SessionKey
from samovard.core.sessions.session import Session
from samovard.core.sessions.write_behind import WriteBehindRecords
from samovard.core.turn.retention import EventRetention
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

CLOSE_TIMEOUT = 20.0  # seconds; longer than any process takes that ends at all

_log = structlog.get_logger("samovard.closing")


class Closing:
    """The sessions that are being closed. `dropped` is called with each that is gone."""

    def __init__(
        self,
        pool: Pool,
        records: WriteBehindRecords,
        agents: Agents,
        retention: EventRetention,
        background: BackgroundWork,
        dropped: Callable[[Session], None],
        recorder: Recorder,
    ) -> None:
        self._pool = pool
        self._records = records
        self._agents = agents
        self._retention = retention
        self._background = background
        self._dropped = dropped
        self._recorder = recorder
        self._under_way: dict[SessionKey, asyncio.Future[None]] = {}
        self.count = 0  # of finished closes: if it changes during a query, the result is stale

    def __contains__(self, key: SessionKey) -> bool:
        return key in self._under_way

    async def over(self, key: SessionKey) -> None:
        """Wait until no session with that key is being closed, even if the close fails."""
        # In a loop, because another close may begin before this task goes on. `wait` neither
        # raises the error of the close nor cancels its future.
        while (closing := self._under_way.get(key)) is not None:
            await asyncio.wait({closing})

    async def close(self, session: Session) -> None:
        """Close a session: end its turns and its process, remove its directory and records.

        Return once the name is free. Cancelling the caller does not cancel the close. Raise
        `Internal` (quarantined) if the process survives SIGKILL, `Internal` (removal-failed)
        if the directory cannot be moved away, `NoProcess` (store-down) if the records cannot be
        deleted. In each case the session can be closed again.
        """
        await self._through(session, self._end)

    async def let_go(self, session: Session) -> None:
        """End a session's turns and its process, and drop it from memory. Its records stay.

        Do nothing if it is being closed. Raise `Internal` (quarantined) if the process survives
        SIGKILL.
        """
        if session.key not in self:
            await self._through(session, self._let_go)

    async def _through(self, session: Session, end: Callable[[Session], Awaitable[None]]) -> None:
        key = session.key
        closing = self._under_way[key] = asyncio.get_running_loop().create_future()
        closing.add_done_callback(_seen)
        work = self._background.spawn(self._run(session, closing, end), f"close {key.session}")
        # A task that is cancelled before its first step does not run its `finally`.
        work.add_done_callback(lambda _: self._over(key, closing, Draining()))
        await asyncio.shield(closing)

    async def _run(
        self,
        session: Session,
        closing: asyncio.Future[None],
        end: Callable[[Session], Awaitable[None]],
    ) -> None:
        error: SamovarError | None = Draining()  # if the task is cancelled
        try:
            await end(session)
            error = None
        except SamovarError as failure:
            error = failure
        except Exception:
            _log.exception("defect", work="close")
            error = Internal("the service broke a rule of its own", cause="defect")
        finally:
            self._over(session.key, closing, error)

    def _over(
        self, key: SessionKey, closing: asyncio.Future[None], error: SamovarError | None
    ) -> None:
        if closing.done():  # called by `_run`, and again when its task is done
            return
        self.count += 1
        del self._under_way[key]
        if error is None:
            closing.set_result(None)
        else:
            closing.set_exception(error)

    async def _end(self, session: Session) -> None:
        await self._quieted(session)
        await self._remove_home(session.record.home)
        await self._records.delete(session.key)
        self._forget(session)

    async def _let_go(self, session: Session) -> None:
        await self._quieted(session)
        self._forget(session)

    async def _quieted(self, session: Session) -> None:
        # All are interrupted before any is waited for, so that they end at the same time.
        for runner in (unended := session.unended()):
            runner.interrupt()
        # Shielded: cancelling this task must not cancel a future that others await.
        for runner in unended:
            await asyncio.shield(runner.done)
        process = session.process()
        if process is not None:
            self._pool.stop(process, "closed")
            await self._reaped(process)

    def _forget(self, session: Session) -> None:
        for turn in [runner.turn for runner in session.runners.values()]:
            self._retention.drop(turn)
        session.runners.clear()
        self._dropped(session)

    async def _reaped(self, process: PooledProcess) -> None:
        while not process.reaped.done():
            # Not `wait_for`, which would cancel the future at the timeout.
            await asyncio.wait({process.reaped}, timeout=CLOSE_TIMEOUT)
            if process.survives and not process.reaped.done():
                raise Internal("the session's process does not end", cause="quarantined")

    async def _remove_home(self, home: str) -> None:
        try:
            await self._agents.remove_home(home)
        except (OSError, SamovarError) as error:
            incident(self._recorder, "removal.failed", home=home, error=repr(error))
            message = "the session's directory cannot be removed; close the session again"
            raise Internal(message, cause="removal-failed") from error


def _seen(closing: asyncio.Future[None]) -> None:
    # The caller may be cancelled; asyncio would then log that the error was never retrieved.
    closing.exception()
