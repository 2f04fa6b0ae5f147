"""Ends sessions for good, each once, and tells who looks for one that it is being ended.

A close is work of the service: it goes on when its caller has left. The session's directory
goes first and its records last, so that a close that fails leaves a session that can be closed
again. Knows nothing of gRPC, of SQL or of how a process works.
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

CLOSE_TIMEOUT = 20.0  # longer than any process that ends takes

_log = structlog.get_logger("samovard.closing")


class Closing:
    """The sessions that are being ended. `dropped` hears of each of which nothing is left."""

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
        self.count = 0  # tells who looked into the store that what he saw may be gone

    def __contains__(self, key: SessionKey) -> bool:
        return key in self._under_way

    async def over(self, key: SessionKey) -> None:
        """Wait until no session of that name is being ended, whether or not that succeeds."""
        while (closing := self._under_way.get(key)) is not None:
            await asyncio.wait({closing})

    async def close(self, session: Session) -> None:
        """End a session: its turns, its process, its directory and its records.

        Return once the name is free. A caller that is cancelled does not cut the close. Raise
        `Internal` (quarantined) if the process survives SIGKILL, `Internal` (removal-failed)
        if the directory cannot be moved away, `NoProcess` (store-down) if the records stay:
        the session can then be closed again.
        """
        await self._through(session, self._end)

    async def let_go(self, session: Session) -> None:
        """End a session's turns and its process, and drop it; what is stored of it stays.

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
        # A task that is cancelled before its first step runs nothing of it.
        work.add_done_callback(lambda _: self._over(key, closing, Draining()))
        await asyncio.shield(closing)

    async def _run(
        self,
        session: Session,
        closing: asyncio.Future[None],
        end: Callable[[Session], Awaitable[None]],
    ) -> None:
        error: SamovarError | None = Draining()  # unless it comes to an end
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
        if closing.done():
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
        for runner in (unended := session.unended()):
            runner.interrupt()
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
    # Its caller may have left, and then nobody looks at how it ended.
    closing.exception()
