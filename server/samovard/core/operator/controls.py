"""What an operator does to tenants' turns and sessions. Each call done twice equals once.

Knows the pool and the sessions; not who may call.
"""

from dataclasses import replace

from samovard.core.errors import SessionNotFound
from samovard.core.pool.pool import Pool
from samovard.core.records import SessionKey
from samovard.core.sessions.directory import Directory
from samovard.core.sessions.sessions import Sessions
from samovard.core.sessions.write_behind import WriteBehindRecords


class Controls:
    """The operator's controls of one service. Pauses are forgotten when it ends."""

    def __init__(
        self, pool: Pool, sessions: Sessions, directory: Directory, records: WriteBehindRecords
    ) -> None:
        self._pool = pool
        self._sessions = sessions
        self._directory = directory
        self._records = records

    def drain(self, tenant: str, profile: str) -> tuple[int, int]:
        """Replace a tenant's processes: those of one profile, or all if it is empty.

        Return how many were told to stop, and how many will be when their turn ends.
        """
        return self._pool.drain(tenant, profile)

    def pause(self, tenant: str) -> None:
        """Let no turn of a tenant begin, or of any tenant if it is empty. Running ones go on."""
        self._pool.queue.paused.add(tenant)

    def resume(self, tenant: str) -> None:
        """Let turns of a tenant begin again; if it is empty, of every tenant."""
        if tenant:
            self._pool.queue.paused.discard(tenant)
        else:
            self._pool.queue.paused.clear()
        self._pool.pump()

    async def interrupt(self, key: SessionKey) -> str:
        """Interrupt a session's running turn. Return its id, empty if none runs.

        Raise `SessionNotFound` if there is no such session.
        """
        await self._sessions.get(key)
        session = self._directory.get(key)
        turn_id = session.active() if session is not None else ""
        if turn_id:
            await self._sessions.interrupt(key, turn_id)
        return turn_id

    async def close(self, key: SessionKey) -> bool:
        """Close a session for good, if there is one. Return True if there was."""
        return await self._sessions.close(key) is not None

    async def unblock(self, key: SessionKey) -> bool:
        """Let turns of a session run again that was blocked, or whose process kept ending.

        Return True if it was blocked. Raise `SessionNotFound` if there is no such session, and
        `NoProcess` (store-down) if that cannot be stored.
        """
        record = await self._records.load(key)
        if record is None:
            raise SessionNotFound
        session = self._directory.get(key)
        blocked = session.record.blocked if session is not None else record.blocked
        if session is not None:
            session.conversation.unblock()  # first: what its last turn stores is then right
        if blocked:
            kept = session.record if session is not None else record
            await self._records.save(replace(kept, blocked=False))
        if (late := self._directory.get(key)) is not None:  # loaded meanwhile, as it was
            late.conversation.unblock()
        self._pool.breakers.forgive(record.home)
        return blocked
