"""Closes sessions whose time is over. Knows nothing of how a session is found or closed."""

from collections.abc import Awaitable, Callable

from samovard.core.records import SessionKey
from samovard.core.sessions.session import Session
from samovard.core.sessions.trusted_clock import TrustedClock
from samovard.core.sessions.write_behind import WriteBehindRecords
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

AT_ONCE = 100  # how many sessions are read from the store at a time


class Expiry:
    """Looks for sessions to close. `find` returns one that is not being closed, or None."""

    def __init__(
        self,
        records: WriteBehindRecords,
        find: Callable[[SessionKey], Awaitable[Session | None]],
        close: Callable[[Session], Awaitable[None]],
        clock: TrustedClock,
        recorder: Recorder,
    ) -> None:
        self._records = records
        self._find = find
        self._close = close
        self._clock = clock
        self._recorder = recorder

    async def run(self) -> int:
        """Close what has expired and return how many sessions that was.

        A session that cannot be closed is reported, and the next run tries it again.
        """
        now, closed = self._clock.now(), 0
        after: SessionKey | None = None
        while keys := await self._records.expired(now, AT_ONCE, after):
            for key in keys:
                closed += await self._expire(key, now)
            after = keys[-1]
        return closed

    async def _expire(self, key: SessionKey, now: float) -> bool:
        try:
            session = await self._find(key)
            # A turn may have begun since the store was asked.
            if session is None or session.record.expire_time > now or session.unended():
                return False
            await self._close(session)
        except Exception as error:
            ids = {"tenant": key.tenant, "session": key.session}
            incident(self._recorder, "session.not_expired", **ids, error=repr(error))
            return False
        return True
