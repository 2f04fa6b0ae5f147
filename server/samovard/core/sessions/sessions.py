"""All sessions of all tenants: found, made, listed and ended.

Knows nothing of gRPC, of SQL or of how a process works. A session is looked up by
(tenant, name); another tenant's is not found, as one that does not exist is not.
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
from samovard.core.records import SessionKey, SessionRecord
from samovard.core.sessions import listed
from samovard.core.sessions.closing import Closing
from samovard.core.sessions.conversation import (
    DEFAULT,
    REMOVED,
    Clocks,
    Conversation,
    Profile,
    TurnRequest,
    begun,
    differences,
)
from samovard.core.sessions.directory import Directory
from samovard.core.sessions.expiry import Expiry
from samovard.core.sessions.rate_limits import RateLimits
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
        profiles: Mapping[str, Profile],
        clocks: Clocks,
        default_profile: str = DEFAULT,
        retention: EventRetention | None = None,
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
        self._rate_limits = RateLimits(clocks.monotonic)
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
        """Begins a turn, or joins it if it runs or is held already; gives its stream.

        `call` is the RPC that asks for it, None if nobody watches it.
        The stream raises what ends the turn. Raises at once `SessionNotFound`,
        `IdTaken`, `SessionBusy`, `RequestInvalid`, `Misconfigured`, `Draining`, and for
        a turn of an earlier server `EventsExpired` or `TurnLost`.
        """
        call = call or CallFacts.unwatched(self._clocks.monotonic, self._clocks.wall())
        turn_id = request.prompt.turn_id
        call.names(request.key.session, turn_id)
        session = await self._own(request, call)
        while (runner := session.runners.get(turn_id)) is not None and runner.withdrawn:
            # Its caller broke off and comes again: once nothing is left of it, it may begin.
            await asyncio.shield(runner.done)
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
        session.begin(runner)
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
                active = session.active() or session.unended()[0].turn.turn_id
                raise SessionBusy(active)
        except SamovarError as error:
            # A turn that ran before is told how it ended, whether another may run now or not.
            with suppress(NoProcess):  # the store is down: what refuses the turn is told
                await self._refuse_stored(session, request)
            self._counters(session).failed(error, began=False)
            raise

    async def _own(self, request: TurnRequest, call: CallFacts) -> Session:
        """Finds or makes the session that a request names, and measures it unless it is at hand."""
        session = self._directory.get(request.key)
        if session is not None and session.ready():
            return await self._open(request)
        with call.stages.part("own"):
            return await self._open(request)

    async def _open(self, request: TurnRequest) -> Session:
        """Finds or makes the session that a request names. What it gives is in use."""
        key = request.key
        while True:
            closes = self._closing.count
            session = await self._find(key) or self._make(request)
            await self._refuse_known(session, request)
            # Whoever came first while we looked into the store has made or closed it.
            if (
                closes == self._closing.count
                and key not in self._closing
                and self._directory.enter(session)
            ):
                return session

    async def _find(self, key: SessionKey) -> Session | None:
        """Finds a session, in use or not, that nobody is closing."""
        while True:
            await self._closing.over(key)
            closes = self._closing.count
            session = self._directory.get(key) or await self._load(key)
            # One that was closed while we looked into the store is there no more.
            if key not in self._closing and closes == self._closing.count:
                return session

    async def _refuse_known(self, session: Session, request: TurnRequest) -> None:
        """Refuses another spec, and a turn that only the store knows before all else.

        Where a process waits for it, the look that records the turn is soon enough.
        """
        if request.spec is not None and (differ := differences(request.spec, session.record.spec)):
            raise IdTaken("session_id", *differ)
        if not session.ready():
            await self._refuse_stored(session, request)

    async def _refuse_stored(self, session: Session, request: TurnRequest) -> None:
        """Raise how a turn ended that only the store knows."""
        turn_id = request.prompt.turn_id
        if session.created and turn_id not in session.runners:
            stored = await self._records.load_turn(request.key, turn_id)
            # Another request may have begun it while we looked into the store.
            if stored is not None and self._runner(request.key, turn_id) is None:
                raise already(stored, request.digest)

    async def _load(self, key: SessionKey) -> Session | None:
        """Gives a session as it is now: in use if it came into use meanwhile."""
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

    def _session(self, profile: Profile, record: SessionRecord, *, created: bool) -> Session:
        conversation = Conversation(
            record=record,
            profile=profile,
            clocks=self._clocks,
            rate_limits=self._rate_limits,
            created=created,
        )
        return Session(conversation, self._pool, self._ended)

    def _ended(self, session: Session, turn: Turn) -> None:
        """Holds a turn's events for a while; forgets a turn that never began at once."""
        if turn.error is None:
            self._counters(session).finished(turn.stages.until("finish"))
        else:
            self._counters(session).failed(turn.error, began=turn.last_sequence > 0)
        if turn.last_sequence > 0 and not session.counted:  # before that it may be undone
            session.counted = True
            self._counters(session).sessions += 1
        if turn.last_sequence == 0:
            self._forget(session, turn)
        else:
            self._retention.keep(turn, lambda: self._forget(session, turn))

    def _forget(self, session: Session, turn: Turn) -> None:
        self._retention.drop(turn)
        session.runners.pop(turn.turn_id, None)
        self._directory.forget_unused(turn.key)

    def _closed(self, session: Session) -> None:
        self._counters(session).closed(counted=session.counted)
        self._directory.drop(session)

    def _counters(self, session: Session) -> PoolCounters:
        record = session.record
        return self._pool.counters.of(record.key.tenant, record.spec.profile)

    def stores(self, key: SessionKey) -> bool:
        """Tells whether a session in use is among those that are counted as stored."""
        session = self._directory.get(key)
        return session is not None and session.counted

    async def attach(
        self, key: SessionKey, turn_id: str, after: int, call: CallFacts | None = None
    ) -> Stream:
        """Follows a turn past an event, without any effect on it; gives its stream.

        The stream raises what ends the turn. Raises at once `SessionNotFound`,
        `TurnNotFound`, `RequestInvalid` for an event that was never told, and for a turn
        of which only the store knows `EventsExpired` or what it ended with.
        """
        runner = self._runner(key, turn_id)
        if runner is None or not runner.recorded:
            stored = await self._records.load_turn(key, turn_id)
            # Whoever sent it while we looked into the store may have begun it.
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
        """Stops a turn, or withdraws one that waits; tells whether it had not ended.

        Raises `SessionNotFound` or `TurnNotFound`.
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
        """Answers a permission request of a session's running turn.

        Raises `SessionNotFound`, `PermissionNotFound`, and `RequestInvalid` for an answer
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
        """Gives a session; raises `SessionNotFound`."""
        session = await self._existing(key)
        if not session.created:
            raise SessionNotFound
        return listed.info(session.record, session)

    async def list(
        self,
        tenant: str,
        before: tuple[float, str] | None,
        limit: int,
        state: SessionState | None = None,
    ) -> list[SessionInfo]:
        """Return a tenant's sessions, all or of a state, latest first; see `Records`."""
        only, but = listed.named(self._directory.of(tenant), state)
        found = await self._records.list(tenant, before, limit, only, but)
        return [listed.info(record, self._directory.get(record.key)) for record in found]

    async def close(self, key: SessionKey) -> SessionInfo | None:
        """Ends a session for good: its turns, its process, its directory and its records.

        Returns once the process is gone; None if there was no such session. Idempotent.
        """
        session = await self._find(key)
        if session is None or not (session.created or session.runners):
            return None
        await self._closing.close(session)
        return SessionInfo(session.record, SessionState.CLOSED)

    async def let_go(self, tenant: str) -> bool:
        """End what runs of a tenant, and drop its sessions. Return True if there was none.

        What is stored of them stays, and so does one that cannot be ended.
        """
        found = list(self._directory.of(tenant).values())
        await asyncio.gather(*map(self._closing.let_go, found), return_exceptions=True)
        return not found

    async def close_expired(self) -> int:
        """Close sessions whose time is over and in which nothing runs. Return how many."""
        return await self._expiry.run()

    def senders(self) -> set[object]:
        """Return whose credentials the turns were sent with that have not ended."""
        return {runner.sender for session in self._directory for runner in session.unended()}

    def revoke(self, senders: Collection[object]) -> None:
        """Stop the turns of senders whose credential is not valid any more."""
        for session in self._directory:
            for runner in session.unended():
                if runner.sender in senders:
                    runner.revoke()

    # Shutting down.

    def refuse_new(self) -> None:
        """Takes no new turns, and withdraws those that wait."""
        self._pool.close()
        self._records.leave()

    @property
    def running(self) -> int:
        """How many turns have not ended."""
        return sum(len(session.unended()) for session in self._directory)

    def interrupt_all(self) -> None:
        """Tells every turn that still runs that the server goes away, and interrupts it."""
        for session in self._directory:
            for runner in session.unended():
                runner.turn.tell(Notice("draining", "the server is going away"))
                runner.interrupt()

    def release(self) -> None:
        """Forgets every held turn, so that no timer is left."""
        self._retention.release()
