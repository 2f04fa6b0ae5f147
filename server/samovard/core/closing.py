"""Ends sessions for good, each once, and tells who looks for one that it is being ended.

Knows nothing of gRPC, of SQL or of how a process works.
"""

import asyncio
from collections.abc import Callable

from samovard.core.errors import Internal
from samovard.core.held import Held
from samovard.core.owed import Owed
from samovard.core.pool import Pool
from samovard.core.process import Agents
from samovard.core.records import SessionKey
from samovard.core.session import Session

CLOSE_TIMEOUT = 20.0


class Closing:
    """The sessions that are being ended. `dropped` hears of each of which nothing is left."""

    def __init__(
        self,
        pool: Pool,
        records: Owed,
        agents: Agents,
        held: Held,
        dropped: Callable[[Session], None],
    ) -> None:
        self._pool = pool
        self._records = records
        self._agents = agents
        self._held = held
        self._dropped = dropped
        self._under_way: dict[SessionKey, asyncio.Future[None]] = {}
        self.count = 0  # tells who looked into the store that what he saw may be gone

    def __contains__(self, key: SessionKey) -> bool:
        return key in self._under_way

    async def over(self, key: SessionKey) -> None:
        """Waits until nobody ends a session of that name."""
        while (closing := self._under_way.get(key)) is not None:
            await asyncio.shield(closing)

    async def close(self, session: Session) -> None:
        """Ends a session: its turns, its process, its directory and its records.

        Raises `Internal` (quarantined) if its process does not end within 20 s.
        """
        key = session.record.key
        closing = self._under_way[key] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._end(session)
        except TimeoutError:
            raise Internal("the session's process does not end", cause="quarantined") from None
        finally:
            self.count += 1
            del self._under_way[key]
            closing.set_result(None)

    async def _end(self, session: Session) -> None:
        key = session.record.key
        for course in (unended := session.unended()):
            course.interrupt()
        for course in unended:
            await asyncio.shield(course.done)
        process = self._pool.process_of(key)
        if process is not None:
            self._pool.stop(process, "closed")
            await asyncio.shield(process.reaped)
        await self._records.delete(key)
        await self._agents.remove_home(session.record.home)
        for turn in [course.turn for course in session.courses.values()]:
            self._held.drop(turn)
        session.courses.clear()
        self._dropped(session)
