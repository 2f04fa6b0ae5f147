"""Records that outlive an outage of the store: what must be written is pending until it is.

Two kinds of writes are made here. The record of a turn that begins must be stored before its prompt
is written: if the store is down, the turn is refused. The outcome of a turn, a session's change, or
a turn's withdrawal must not be lost, though there is no caller to refuse any more: it is pending,
is tried again, and waits in memory meanwhile.

For each session there is one line of pending writes, oldest first. A write joins its line at once,
before it is tried. Nothing of one session is read or written before its line is empty: no one can
tell that a write came late. (Lists and expiry read many sessions, and do not wait.) One caller at a
time makes the first write; others wait for it, and all are told if the store refused it. A line
that no caller waits for has a task of its own, which tries every 2 s.

What always holds: writes of a session are made in order, each once. A reader sees all earlier
writes. When the service leaves, each line is tried once more and then given up, with an incident.

The trap: a write that is repeated after a failure, while a later one was made meanwhile, overwrites
what came later. And a caller that is cancelled while it makes a write leaves it neither made nor
refused: the next one makes it again, so every write here can be made twice.

Do not write to the store around this class, and do not drop a line because its session was
forgotten. Knows nothing of SQL, or of what a turn is.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

from samovard.core.errors import NoProcess
from samovard.core.pool.background import BackgroundWork
from samovard.core.records import Records, SessionKey, SessionRecord, TurnRecord
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

COMMIT_TIMEOUT = 10.0  # seconds until the outcome of a turn is left to the background
PAUSE, MAX_PAUSE = 0.1, 2.0  # seconds between two attempts: doubled from the first to the second

Write = Callable[[], Awaitable[None]]


@dataclass(eq=False, slots=True)
class _Pending:
    """The pending writes of a session, oldest first, including the one being made.

    `writing` is None unless a write is being made; its result is True if the store refused the
    write. `settling` is True once a background task makes the writes.
    """

    writes: deque[Write] = field(default_factory=deque)
    writing: asyncio.Future[bool] | None = None
    settling: bool = False


class WriteBehindRecords:
    """The interface of `Records`, with writes that are queued and retried while the store is down.

    Cancelling a caller of `withdraw`, `commit` or `save` leaves its write pending: the next access
    to the session makes it.
    """

    def __init__(
        self,
        records: Records,
        background: BackgroundWork,
        recorder: Recorder,
    ) -> None:
        self._recorder = recorder
        self._records = records
        self._background = background
        self._leaving = False
        self._pending: dict[SessionKey, _Pending] = {}

    def __repr__(self) -> str:
        count = sum(len(pending.writes) for pending in self._pending.values())
        return f"<WriteBehindRecords {count} writes of {len(self._pending)} sessions>"

    def leave(self) -> None:
        """Try pending writes once more from now on, and drop those that fail."""
        self._leaving = True

    async def load(self, key: SessionKey) -> SessionRecord | None:
        """Return a session, or None. Raise `NoProcess` if its pending writes cannot be made."""
        await self._flush(key)
        return await self._records.load(key)

    async def load_turn(self, key: SessionKey, turn_id: str) -> TurnRecord | None:
        """Return a turn, or None. Raise `NoProcess` if pending writes cannot be made."""
        await self._flush(key)
        return await self._records.load_turn(key, turn_id)

    async def begin_turn(self, session: SessionRecord, turn: TurnRecord) -> TurnRecord | None:
        """Store a turn that is about to begin, not later but now; see `Records.begin_turn`."""
        if session.key in self._pending:
            await self._flush(session.key)
        return await self._records.begin_turn(session, turn)

    async def withdraw(self, key: SessionKey, turn_id: str, session: SessionRecord | None) -> None:
        """Undo `begin_turn`, now or later: a turn that did not begin leaves no trace."""
        await self._now_or_later(key, partial(self._records.withdraw, key, turn_id, session))

    async def commit(self, session: SessionRecord, turn: TurnRecord) -> bool:
        """Store the outcome of a turn. Return False after 10 s, and store it later."""
        write = partial(self._records.commit, session, turn)
        pending = self._queue(session.key, write)
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT):
                await self._insist(session.key, pending, write)
        except TimeoutError:
            self._settle_later(session.key, pending)
            return False
        return True

    async def save(self, session: SessionRecord) -> None:
        """Update a session that is already stored, now or later."""
        await self._now_or_later(session.key, partial(self._records.save, session))

    async def list(
        self,
        tenant: str,
        before: tuple[float, str] | None,
        limit: int,
        only: Collection[str] | None = None,
        but: Collection[str] = (),
    ) -> list[SessionRecord]:
        """Return a tenant's sessions without pending writes; see `Records.list`."""
        return await self._records.list(tenant, before, limit, only, but)

    async def expired(
        self, now: float, limit: int, after: SessionKey | None = None
    ) -> Sequence[SessionKey]:
        """Return the keys of expired sessions without pending writes; see `Records.expired`."""
        return await self._records.expired(now, limit, after)

    async def delete(self, key: SessionKey) -> None:
        """Delete a session, its turns and their pending writes. Idempotent.

        Raise `NoProcess` (store-down) if the store is down: the writes are then pending again.
        """
        # First: a pending write that is made after the delete would restore the session.
        pending = self._pending.pop(key, None)
        if pending is not None and pending.writing is not None:
            await asyncio.shield(pending.writing)  # it could restore what is deleted below
        try:
            await self._records.delete(key)
        except NoProcess:
            if pending is not None:
                later = self._pending.setdefault(key, _Pending())
                # The session was not deleted: its writes come before those queued meanwhile.
                later.writes.extendleft(reversed(pending.writes))
                self._settle_later(key, later)
            raise

    async def _now_or_later(self, key: SessionKey, write: Write) -> None:
        pending = self._queue(key, write)
        try:
            await self._flush(key)
        except NoProcess:
            self._tell(key)
            self._settle_later(key, pending)

    async def _insist(self, key: SessionKey, pending: _Pending, write: Write) -> None:
        """Retry until a write is made, without a limit."""
        pause = PAUSE
        # Another caller may have made the write, or `delete` may have dropped it.
        while self._pending.get(key) is pending and write in pending.writes:
            try:
                await self._flush(key)
            except NoProcess:  # the store is down: back off
                if pause == PAUSE:
                    self._tell(key)
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_PAUSE)

    def _queue(self, key: SessionKey, write: Write) -> _Pending:
        """Append a write to the pending writes of its session."""
        # Even before the first attempt: a retry could otherwise overwrite a later write.
        pending = self._pending.setdefault(key, _Pending())
        pending.writes.append(write)
        return pending

    def _tell(self, key: SessionKey) -> None:
        incident(self._recorder, "store.owed", session=key.session, tenant=key.tenant)

    def _settle_later(self, key: SessionKey, pending: _Pending) -> None:
        if not pending.settling and self._pending.get(key) is pending:
            pending.settling = True
            self._background.spawn(self._settle(key, pending), "settle what is owed")

    async def _settle(self, key: SessionKey, pending: _Pending) -> None:
        """Retry the pending writes of a session every 2 s until they are made."""
        while self._pending.get(key) is pending:
            last = self._leaving  # before the attempt: each line is tried once after `leave`
            try:
                await self._flush(key)
            except Exception as error:
                if not isinstance(error, NoProcess):
                    incident(self._recorder, "loop.failed", loop="settle", exc_info=True)
                if last:
                    incident(self._recorder, "store.lost", session=key.session, tenant=key.tenant)
                    return
                await asyncio.sleep(MAX_PAUSE)

    async def _flush(self, key: SessionKey) -> None:
        """Make the pending writes of a session, in order. Raise `NoProcess` if one fails."""
        while (pending := self._pending.get(key)) is not None:
            if pending.writing is None:
                # It keeps others out: a second, slower attempt could overwrite a later write.
                writing = pending.writing = asyncio.get_running_loop().create_future()
                refused = False  # stays so if this caller is cancelled: the next one tries again
                try:
                    await pending.writes[0]()
                    pending.writes.popleft()
                except NoProcess:
                    refused = True
                    raise
                finally:
                    pending.writing = None
                    writing.set_result(refused)
            elif await asyncio.shield(pending.writing):
                raise NoProcess("the store does not answer", cause="store-down", retry_after=1.0)
            # `delete` may have removed or replaced it during the write.
            if not pending.writes and self._pending.get(key) is pending:
                del self._pending[key]
