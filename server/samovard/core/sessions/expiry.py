"""Expiry: closing sessions whose expire time has passed."""

from collections.abc import Awaitable, Callable

from samovard.core.records import SessionKey
from samovard.core.sessions.session import Session
from samovard.core.sessions.trusted_clock import TrustedClock
from samovard.core.sessions.write_behind import WriteBehindRecords
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

AT_ONCE = 100  # how many keys are read from the store at a time


class Expiry:
    """The job that closes expired sessions.

    `find` returns a session that is not being closed, or None; `close` closes it.
    """

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
        """Close all expired sessions, and return their number.

        A session that cannot be closed is reported and retried by the next run.
        """
        now, closed = self._clock.now(), 0
        after: SessionKey | None = None
        while keys := await self._records.expired(now, AT_ONCE, after):
            for key in keys:
                closed += await self._expire(key, now)
            after = keys[-1]  # go on even if a close failed, or the loop would not end
        return closed

    async def _expire(self, key: SessionKey, now: float) -> bool:
        try:
            session = await self._find(key)
            # A turn may have begun since the store was queried.
            if session is None or session.record.expire_time > now or session.unended():
                return False
            await self._close(session)
        except Exception as error:
            ids = {"tenant": key.tenant, "session": key.session}
            incident(self._recorder, "session.not_expired", **ids, error=repr(error))
            return False
        return True
