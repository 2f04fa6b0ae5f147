"""The service's sessions: finding, creating, listing and closing them.

A session is looked up by (tenant, name). Another tenant's session is not found, exactly like one
that does not exist. This module does not depend on gRPC, SQL or the agent's protocol.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress

from samovard.core.errors import (
    Draining,
    IdTaken,
    NoProcess,
    SamovarError,
    SessionBusy,
    SessionNotFound,
    TurnNotFound,
)
from samovard.core.events import Notice
from samovard.core.pool.background import BackgroundWork
from samovard.core.pool.counters import PoolCounters
from samovard.core.pool.pool import Pool
from samovard.core.process import Agents, PermissionDecision
from samovard.core.records import Cursor, SessionKey, SessionRecord
from samovard.core.sessions import listed
from samovard.core.sessions.closing import Closing
from samovard.core.sessions.conversation import (
    DEFAULT,
    REMOVED,
    Clocks,
    Conversation,
    SessionRules,
    TurnRequest,
    begun,
    differences,
)
from samovard.core.sessions.directory import Directory
from samovard.core.sessions.expiry import Expiry
from samovard.core.sessions.quotas import Quotas
from samovard.core.sessions.session import Session, SessionInfo, SessionState
from samovard.core.sessions.trusted_clock import TrustedClock
from samovard.core.sessions.turn_runner import TurnRunner
from samovard.core.sessions.write_behind import WriteBehindRecords
from samovard.core.turn.follower import Follower
from samovard.core.turn.replay import Stream, already, past_the_last, replay
from samovard.core.turn.retention import EventRetention
from samovard.core.turn.turn import Phase, StreamBounds, Turn
from samovard.telemetry.facts import CallFacts
from samovard.telemetry.recorder import NULL_RECORDER, Recorder
from samovard.telemetry.stages import stage


class Sessions:
    """All sessions of all tenants."""

    def __init__(
        self,
        pool: Pool,
        *,
        directory: Directory,
        records: WriteBehindRecords,
        background: BackgroundWork,
        agents: Agents,
        profiles: Mapping[str, SessionRules],
        clocks: Clocks,
        default_profile: str = DEFAULT,
        retention: EventRetention | None = None,
        quotas: Quotas | None = None,
        bounds: StreamBounds | None = None,
        recorder: Recorder = NULL_RECORDER,
    ) -> None:
        self._pool = pool
        self._directory = directory
        self._records = records
        self._background = background
        self._profiles = profiles
        self._default_profile = default_profile
        self._clocks = clocks
        self._retention = retention or EventRetention()
        self._bounds = bounds or StreamBounds()
        self._recorder = recorder
        self.quotas = quotas or Quotas(clocks.wall, clocks.monotonic)
        self._closing = Closing(
            pool=pool,
            records=records,
            agents=agents,
            retention=self._retention,
            background=background,
            dropped=self._closed,
            recorder=recorder,
        )
        clock = TrustedClock(clocks, recorder)
        self._expiry = Expiry(records, self._find, self._closing.close, clock, recorder)

    def __len__(self) -> int:
        return len(self._directory)

    def __repr__(self) -> str:
        return f"<Sessions held={len(self._directory)} running={self.running}>"

    async def begin(self, request: TurnRequest, call: CallFacts | None = None) -> Follower:
        """Begin a turn, or join it if it runs or is held already. Return its stream.

        `call` is the telemetry of the RPC, if any. The stream raises the error that ends the
        turn. Raise `SessionNotFound`, `IdTaken`, `SessionBusy`, `RequestInvalid`,
        `Misconfigured`, `QuotaExceeded`, `NoProcess` or `Draining` if the turn cannot begin,
        `EventsExpired` or `TurnLost` if it ran earlier.
        """
        call = call or CallFacts.unwatched(self._clocks.monotonic, self._clocks.wall())
        turn_id = request.prompt.turn_id
        call.names(request.key.session, turn_id)
        session = await self._own(request, call)
        while (runner := session.runners.get(turn_id)) is not None and runner.withdrawn:
            # The client left and repeats the turn: it may begin once the old one is gone.
            await asyncio.shield(runner.done)  # others await it as well
            session = await self._open(request)
        if runner is not None:
            if runner.turn.digest != request.digest:
                raise await runner.clash(request.digest)
            call.joined = runner.turn.facts
            return runner.turn.follow(sends=True)
        try:
            await self._admit(session, request)
            stage(call.stages, "admit")
            return self._start(session, request, call)
        finally:
            self._directory.forget_unused(request.key)  # a session whose first turn was refused

    def _start(self, session: Session, request: TurnRequest, call: CallFacts) -> Follower:
        runner = TurnRunner(
            request,
            conversation=session.conversation,
            turns=session,
            pool=self._pool,
            records=self._records,
            facts=session.conversation.facts(self._recorder, call),
            retention=self._retention,
            bounds=self._bounds,
        )
        session.begin(runner)  # before the task starts, so that a repeated turn joins this one
        self._retention.add(runner.turn)
        follower = runner.turn.follow(sends=True)
        self._background.spawn(runner.run(), f"turn {runner.turn.turn_id}")
        return follower

    async def _admit(self, session: Session, request: TurnRequest) -> None:
        try:
            if self._pool.closing:
                raise Draining
            session.conversation.admit()
            if len(session.unended()) > session.conversation.profile.queue:
                raise SessionBusy(session.active() or session.unended()[0].turn.turn_id)
            self.quotas.take(request.key.tenant)  # last: only turns that begin are counted
        except SamovarError as error:
            # A turn that ran before gets its own outcome, even if no other turn may run now.
            with suppress(NoProcess):  # the store is down: `error` is raised instead
                await self._refuse_stored(session, request)
            self._counters(session).failed(error, began=False)
            raise

    async def _own(self, request: TurnRequest, call: CallFacts) -> Session:
        """Find or create the session of a request, and measure that unless it is ready."""
        session = self._directory.get(request.key)
        if session is not None and session.ready():
            return await self._open(request)
        with call.stages.part("own"):
            return await self._open(request)

    async def _open(self, request: TurnRequest) -> Session:
        """Find or create the session of a request. Return it once it is in the directory."""
        key = request.key
        while True:
            closes = self._closing.count
            session = await self._find(key) or self._make(request)
            await self._refuse_known(session, request)
            # Another request may have created or closed it during the query: then start again.
            if (
                closes == self._closing.count
                and key not in self._closing
                and self._directory.enter(session)
            ):
                return session

    async def _find(self, key: SessionKey) -> Session | None:
        """Return a session that is not being closed, in memory or not, or None."""
        while True:
            await self._closing.over(key)
            closes = self._closing.count
            session = self._directory.get(key) or await self._load(key)
            # If any close finished during the query, its result may be stale.
            if key not in self._closing and closes == self._closing.count:
                return session

    async def _refuse_known(self, session: Session, request: TurnRequest) -> None:
        """Raise `IdTaken` for a different spec, and the outcome of a turn that is only stored.

        If the session is ready, the query is skipped: recording the turn finds a stored one.
        """
        if request.spec is not None and (differ := differences(request.spec, session.record.spec)):
            raise IdTaken("session_id", *differ)
        if not session.ready():
            await self._refuse_stored(session, request)

    async def _refuse_stored(self, session: Session, request: TurnRequest) -> None:
        """Raise the error for a turn that is stored and no longer in memory, if it is one."""
        turn_id = request.prompt.turn_id
        if session.created and turn_id not in session.runners:
            stored = await self._records.load_turn(request.key, turn_id)
            # Another request may have begun it during the query.
            if stored is not None and self._runner(request.key, turn_id) is None:
                raise already(stored, request.digest)

    async def _load(self, key: SessionKey) -> Session | None:
        """Load a session from the store, or return the one put into memory meanwhile, or None."""
        record = await self._records.load(key)
        session = self._directory.get(key)
        if record is None or session is not None:
            return session
        profile = self._profiles.get(record.spec.profile, REMOVED)
        return self._session(profile, record, created=True)

    def _make(self, request: TurnRequest) -> Session:
        now = self._clocks.wall()
        profile, record = begun(request, self._profiles, self._default_profile, now)
        return self._session(profile, record, created=False)

    def _session(self, profile: SessionRules, record: SessionRecord, *, created: bool) -> Session:
        conversation = Conversation(
            record=record,
            profile=profile,
            clocks=self._clocks,
            quotas=self.quotas,
            created=created,
        )
        return Session(conversation, self._pool, self._ended)

    def _ended(self, session: Session, turn: Turn) -> None:
        """Count an ended turn. Hold its events for a while, or forget it if it never began."""
        counters, began = self._counters(session), turn.last_sequence > 0
        if turn.error is None:
            counters.finished(turn.stages.until("finish"))
        else:
            counters.failed(turn.error, began=began)
        if began:
            if not session.counted:  # before that its record may be withdrawn
                session.counted = True
                counters.sessions += 1
            self._retention.keep(turn, lambda: self._forget(session, turn))
        else:
            self._forget(session, turn)

    def _forget(self, session: Session, turn: Turn) -> None:
        self._retention.drop(turn)
        session.runners.pop(turn.turn_id, None)
        self._directory.forget_unused(turn.key)

    def _closed(self, session: Session) -> None:
        self._counters(session).closed(counted=session.counted)
        self._directory.drop(session)

    def _counters(self, session: Session) -> PoolCounters:
        return self._pool.counters.of(session.key.tenant, session.record.spec.profile)

    def stores(self, key: SessionKey) -> bool:
        """Return True if a session is in memory and counted as stored."""
        session = self._directory.get(key)
        return session is not None and session.counted

    async def attach(
        self, key: SessionKey, turn_id: str, after: int, call: CallFacts | None = None
    ) -> Stream:
        """Return a stream of a turn's events after an event number, without affecting the turn.

        The stream raises the error that ends the turn. Raise `SessionNotFound`, `TurnNotFound`,
        `QuotaExceeded`, `RequestInvalid` for an event that the turn never had, `EventsExpired`
        for a dropped one, and the error of a turn that is only stored.
        """
        runner = self._runner(key, turn_id)
        if runner is None or not runner.recorded:  # an earlier turn may have the same id
            stored = await self._records.load_turn(key, turn_id)
            # It may have begun during the query.
            runner = self._runner(key, turn_id)
            if stored is not None and not (runner is not None and runner.recorded):
                return replay(stored, after)
            if runner is None:
                await self._existing(key)
                raise TurnNotFound
        if after > runner.turn.last_sequence:
            raise past_the_last()
        if call is not None:
            call.joined = runner.turn.facts
        return runner.turn.follow(after)

    def _runner(self, key: SessionKey, turn_id: str) -> TurnRunner | None:
        session = self._directory.get(key)
        return session.runners.get(turn_id) if session is not None else None

    async def interrupt(self, key: SessionKey, turn_id: str) -> bool:
        """Stop a running turn or withdraw a waiting one. Return True if it had not ended.

        Raise `SessionNotFound` or `TurnNotFound`.
        """
        session = await self._existing(key)
        runner = session.runners.get(turn_id)
        if runner is None:
            if await self._records.load_turn(key, turn_id) is None:
                raise TurnNotFound
            return False
        if runner.turn.phase is Phase.ENDED:
            return False
        runner.interrupt()
        return True

    async def respond(self, key: SessionKey, asked: str, decision: PermissionDecision) -> None:
        """Answer a permission request of a session's running turn.

        Raise `SessionNotFound`, `PermissionNotFound`, or `RequestInvalid` for an answer
        that the profile does not allow. Idempotent for an equal answer.
        """
        session = await self._existing(key)
        session.respond(asked, decision)

    async def _existing(self, key: SessionKey) -> Session:
        session = self._directory.get(key) or await self._load(key)
        if session is None or not (session.created or session.runners):
            raise SessionNotFound
        return session

    async def get(self, key: SessionKey) -> SessionInfo:
        """Return a stored session. Raise `SessionNotFound` if there is none."""
        session = await self._existing(key)
        if not session.created:
            raise SessionNotFound
        return listed.info(session.record, session)

    async def list(
        self, tenant: str, before: Cursor | None, limit: int, state: SessionState | None = None
    ) -> list[SessionInfo]:
        """Return a tenant's sessions in a state (None: any), latest first; see `Records.list`."""
        only, but = listed.named(self._directory.of(tenant), state)
        found = await self._records.list(tenant, before, limit, only, but)
        return [listed.info(record, self._directory.get(record.key)) for record in found]

    async def close(self, key: SessionKey) -> SessionInfo | None:
        """Close a session; see `Closing.close`. Cancelling the caller does not cancel the close.

        Return the session once it is gone, or None if there was none. Idempotent.
        """
        session = await self._find(key)
        if session is None or not (session.created or session.runners):
            return None
        await self._closing.close(session)
        return SessionInfo(session.record, SessionState.CLOSED)

    async def let_go(self, tenant: str) -> bool:
        """End a tenant's turns and processes, and drop its sessions from memory.

        Return True if there were none. Their records stay. A session that cannot end stays too.
        """
        found = list(self._directory.of(tenant).values())
        await asyncio.gather(*map(self._closing.let_go, found), return_exceptions=True)
        return not found

    async def close_expired(self) -> int:
        """Close expired sessions without running or waiting turns. Return their number."""
        return await self._expiry.run()

    def senders(self) -> set[object]:
        """Return the senders of all turns that have not ended."""
        return {runner.sender for runner in self._directory.unended()}

    def revoke(self, senders: Collection[object]) -> None:
        """Stop the turns of senders whose credential is no longer valid."""
        for runner in self._directory.unended():
            if runner.sender in senders:
                runner.revoke()

    # Shutting down.

    def refuse_new(self) -> None:
        """Reject new and waiting turns. Pending writes are tried once more and then dropped."""
        self._pool.close()
        self._records.leave()

    @property
    def running(self) -> int:
        """The number of turns that have not ended."""
        return len(self._directory.unended())

    def interrupt_all(self) -> None:
        """Interrupt every turn that has not ended, after a notice that the server shuts down."""
        for runner in self._directory.unended():
            runner.turn.tell(Notice("draining", "the server is going away"))
            runner.interrupt()

    def release(self) -> None:
        """Drop every held turn and cancel its timers."""
        self._retention.release()
