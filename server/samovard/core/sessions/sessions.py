"""All sessions of all tenants: found, made, listed and ended.

Knows nothing of gRPC, of SQL or of how a process works. A session is looked up by
(tenant, name); another tenant's is not found, as one that does not exist is not.
"""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace

from samovard.core.errors import (
    Draining,
    IdTaken,
    SamovarError,
    SessionBusy,
    SessionNotFound,
    TurnNotFound,
)
from samovard.core.events import Notice
from samovard.core.pool.counters import Tally
from samovard.core.pool.pool import Pool
from samovard.core.process import Agents, Decision
from samovard.core.records import Records, SessionKey, SessionRecord
from samovard.core.sessions import listed
from samovard.core.sessions.closing import Closing
from samovard.core.sessions.expiry import Expiry
from samovard.core.sessions.rate_limits import Upstream
from samovard.core.sessions.session import (
    DEFAULT,
    REMOVED,
    Clocks,
    Profile,
    Sending,
    Session,
    SessionInfo,
    SessionState,
    begun,
    differences,
)
from samovard.core.sessions.trusted_clock import TrustedClock
from samovard.core.sessions.turn_runner import Course
from samovard.core.sessions.write_behind import Owed
from samovard.core.turn.follower import Follower
from samovard.core.turn.replay import Stream, already, past_the_last, replay
from samovard.core.turn.retention import Held
from samovard.core.turn.turn import Bounds, Phase, Turn
from samovard.telemetry.call import Call
from samovard.telemetry.recorder import NOBODY, Recorder
from samovard.telemetry.stages import stage


class Sessions:
    """All sessions of all tenants."""

    def __init__(
        self,
        pool: Pool,
        records: Records,
        agents: Agents,
        profiles: Mapping[str, Profile],
        clocks: Clocks,
        *,
        default_profile: str = DEFAULT,
        held: Held | None = None,
        bounds: Bounds | None = None,
        recorder: Recorder = NOBODY,
    ) -> None:
        self._pool = pool
        self._records = Owed(records, pool.spawn, lambda: pool.draining, recorder)
        self._profiles = profiles
        self._default_profile = default_profile
        self._clocks = clocks
        self._held = held or Held()
        self._bounds = bounds or Bounds()
        self._recorder = recorder
        self._sessions: dict[SessionKey, Session] = {}
        self._upstream = Upstream(clocks.monotonic)
        parts = pool, self._records, agents, self._held
        self._closing = Closing(*parts, self._closed, recorder)
        expires = self._records, self._find, self._closing.close
        self._expiry = Expiry(*expires, TrustedClock(clocks, recorder), recorder)
        pool.on_foreign = self._block
        pool.on_reaped = self._forget_unused

    def __len__(self) -> int:
        return len(self._sessions)

    def __repr__(self) -> str:
        return f"<Sessions held={len(self._sessions)} running={self.running}>"

    async def begin(self, sending: Sending, call: Call | None = None) -> Follower:
        """Begins a turn, or joins it if it runs or is held already; gives its stream.

        `call` is the RPC that asks for it, None if nobody watches it.
        The stream raises what ends the turn. Raises at once `SessionNotFound`,
        `IdTaken`, `SessionBusy`, `RequestInvalid`, `Misconfigured`, `Draining`, and for
        a turn of an earlier server `EventsExpired` or `TurnLost`.
        """
        call = call or Call.unwatched(self._clocks.monotonic, self._clocks.wall())
        turn_id = sending.prompt.turn_id
        call.names(sending.key.session, turn_id)
        session = await self._own(sending, call)
        while (course := session.courses.get(turn_id)) is not None and course.withdrawn:
            # Its caller broke off and comes again: once nothing is left of it, it may begin.
            await asyncio.shield(course.done)
            session = await self._open(sending)
        if course is not None:
            if course.turn.digest != sending.digest:
                raise await course.clash(sending.digest)
            call.joined = course.turn.observation
            return course.turn.follow(sends=True)
        try:
            self._admit(session)
            stage(call.stages, "admit")
            return self._start(session, sending, call)
        finally:
            self._forget_unused(sending.key)  # a session whose first turn was refused

    def _start(self, session: Session, sending: Sending, call: Call) -> Follower:
        course = Course(session, sending.sender)
        course.turn = Turn(
            sending.key,
            session.prompt(sending.prompt),
            sending.digest,
            course,
            session.observed(self._recorder, call),
            self._held,
            on_disconnect=sending.on_disconnect,
            limits=session.limits(sending.limits),
            permission_timeout=session.profile.permission_timeout,
            bounds=self._bounds,
        )
        session.begin(course)
        self._held.add(course.turn)
        follower = course.turn.follow(sends=True)
        self._pool.spawn(course.run(), f"turn {course.turn.turn_id}")
        return follower

    def _admit(self, session: Session) -> None:
        try:
            if self._pool.draining:
                raise Draining
            session.admit()
            if len(session.unended()) > session.profile.queue:
                active = session.active() or session.unended()[0].turn.turn_id
                raise SessionBusy(active)
        except SamovarError as error:
            self._tally(session).failed(error, began=False)
            raise

    async def _own(self, sending: Sending, call: Call) -> Session:
        """Finds or makes the session that a request names, and measures it unless it is at hand."""
        session = self._sessions.get(sending.key)
        if session is not None and session.ready():
            return await self._open(sending)
        with call.stages.part("own"):
            return await self._open(sending)

    async def _open(self, sending: Sending) -> Session:
        """Finds or makes the session that a request names. What it gives is in use."""
        key = sending.key
        while True:
            closes = self._closing.count
            session = await self._find(key) or self._make(sending)
            await self._refuse_known(session, sending)
            # Whoever came first while we looked into the store has made or closed it.
            if (
                closes == self._closing.count
                and key not in self._closing
                and self._sessions.setdefault(key, session) is session
            ):
                return session

    async def _find(self, key: SessionKey) -> Session | None:
        """Finds a session, in use or not, that nobody is closing."""
        while True:
            await self._closing.over(key)
            closes = self._closing.count
            session = self._sessions.get(key) or await self._load(key)
            # One that was closed while we looked into the store is there no more.
            if key not in self._closing and closes == self._closing.count:
                return session

    async def _refuse_known(self, session: Session, sending: Sending) -> None:
        """Refuses another spec, and a turn that only the store knows before all else.

        Where a process waits for it, the look that records the turn is soon enough.
        """
        if sending.spec is not None and (differ := differences(sending.spec, session.record.spec)):
            raise IdTaken("session_id", *differ)
        turn_id = sending.prompt.turn_id
        if session.created and turn_id not in session.courses and not session.ready():
            stored = await self._records.load_turn(sending.key, turn_id)
            # Whoever sent it while we looked into the store has begun it.
            if stored is not None and self._course(sending.key, turn_id) is None:
                raise already(stored, sending.digest)

    async def _load(self, key: SessionKey) -> Session | None:
        """Gives a session as it is now: in use if it came into use meanwhile."""
        record = await self._records.load(key)
        if record is None or key in self._sessions:
            return self._sessions.get(key)
        profile = self._profiles.get(record.spec.profile, REMOVED)
        return self._session(profile, record, created=True)

    def _make(self, sending: Sending) -> Session:
        now = self._clocks.wall()
        profile, record = begun(sending, self._profiles, self._default_profile, now)
        return self._session(profile, record, created=False)

    def _session(self, profile: Profile, record: SessionRecord, *, created: bool) -> Session:
        parts = self._pool, self._records, self._clocks, profile, record, created, self._ended
        return Session(*parts, self._upstream, counted=created)

    def _ended(self, session: Session, turn: Turn) -> None:
        """Holds a turn's events for a while; forgets a turn that never began at once."""
        if turn.error is None:
            self._tally(session).finished(turn.stages.until("finish"))
        else:
            self._tally(session).failed(turn.error, began=turn.last_sequence > 0)
        if turn.last_sequence > 0 and not session.counted:  # before that it may be undone
            session.counted = True
            self._tally(session).sessions += 1
        if turn.last_sequence == 0:
            self._forget(session, turn)
        else:
            self._held.keep(turn, lambda: self._forget(session, turn))

    def _forget(self, session: Session, turn: Turn) -> None:
        self._held.drop(turn)
        session.courses.pop(turn.turn_id, None)
        self._forget_unused(turn.key)

    def _forget_unused(self, key: SessionKey) -> None:
        """Forgets a session without turns; the store has it, if it was ever created."""
        session = self._sessions.get(key)
        if session is None or session.courses:
            return
        if not session.created or self._pool.process_of(key) is None:
            self._drop(session)

    def _closed(self, session: Session) -> None:
        self._tally(session).closed(counted=session.counted)
        self._drop(session)

    def _tally(self, session: Session) -> Tally:
        record = session.record
        return self._pool.tallies.of(record.key.tenant, record.spec.profile)

    def stores(self, key: SessionKey) -> bool:
        """Tells whether a session in use is among those that are counted as stored."""
        session = self._sessions.get(key)
        return session is not None and session.counted

    def _drop(self, session: Session) -> None:
        if self._sessions.get(session.record.key) is session:
            del self._sessions[session.record.key]

    async def attach(
        self, key: SessionKey, turn_id: str, after: int, call: Call | None = None
    ) -> Stream:
        """Follows a turn past an event, without any effect on it; gives its stream.

        The stream raises what ends the turn. Raises at once `SessionNotFound`,
        `TurnNotFound`, `RequestInvalid` for an event that was never told, and for a turn
        of which only the store knows `EventsExpired` or what it ended with.
        """
        course = self._course(key, turn_id)
        if course is None or not course.recorded:
            stored = await self._records.load_turn(key, turn_id)
            # Whoever sent it while we looked into the store may have begun it.
            course = self._course(key, turn_id)
            if stored is not None and not (course is not None and course.recorded):
                return replay(stored, after)
            if course is None:
                await self._existing(key)
                raise TurnNotFound
        if after > course.turn.last_sequence:
            raise past_the_last()
        if call is not None:
            call.joined = course.turn.observation
        return course.turn.follow(after)

    def _course(self, key: SessionKey, turn_id: str) -> Course | None:
        session = self._sessions.get(key)
        return session.courses.get(turn_id) if session is not None else None

    async def interrupt(self, key: SessionKey, turn_id: str) -> bool:
        """Stops a turn, or withdraws one that waits; tells whether it had not ended.

        Raises `SessionNotFound` or `TurnNotFound`.
        """
        session = await self._existing(key)
        course = session.courses.get(turn_id)
        if course is None:
            if await self._records.load_turn(key, turn_id) is None:
                raise TurnNotFound
            return False
        if course.turn.phase is Phase.ENDED:
            return False
        course.interrupt()
        return True

    async def respond(self, key: SessionKey, permission_id: str, decision: Decision) -> None:
        """Answers a permission request of a session's running turn.

        Raises `SessionNotFound`, `PermissionNotFound`, and `RequestInvalid` for an answer
        that the profile does not allow. Idempotent for an equal answer.
        """
        session = await self._existing(key)
        session.respond(permission_id, decision)

    async def _existing(self, key: SessionKey) -> Session:
        session = self._sessions.get(key) or await self._load(key)
        if session is None or not (session.created or session.courses):
            raise SessionNotFound
        return session

    async def get(self, key: SessionKey) -> SessionInfo:
        """Gives a session; raises `SessionNotFound`."""
        session = await self._existing(key)
        if not session.created:
            raise SessionNotFound
        return listed.info(session.record, session)

    async def list(
        self, tenant: str, before: tuple[float, str] | None, limit: int, state: int = 0
    ) -> list[SessionInfo]:
        """Return a tenant's sessions, all or of a state, latest first; see `Records`."""
        only, but = listed.named(self._of(tenant), state)
        found = await self._records.list(tenant, before, limit, only, but)
        return [listed.info(record, self._sessions.get(record.key)) for record in found]

    async def close(self, key: SessionKey) -> SessionInfo | None:
        """Ends a session for good: its turns, its process, its directory and its records.

        Returns once the process is gone; None if there was no such session. Idempotent.
        """
        session = await self._find(key)
        if session is None or not (session.created or session.courses):
            return None
        await self._closing.close(session)
        return SessionInfo(session.record, SessionState.CLOSED)

    async def let_go(self, tenant: str) -> bool:
        """End what runs of a tenant, and drop its sessions. Return True if there was none.

        What is stored of them stays, and so does one that cannot be ended.
        """
        found = list(self._of(tenant).values())
        await asyncio.gather(*map(self._closing.let_go, found), return_exceptions=True)
        return not found

    def _of(self, tenant: str) -> dict[str, Session]:
        return {key.session: s for key, s in self._sessions.items() if key.tenant == tenant}

    async def close_expired(self) -> int:
        """Close sessions whose time is over and in which nothing runs. Return how many."""
        return await self._expiry.run()

    def _block(self, key: SessionKey) -> None:
        session = self._sessions.get(key)
        if session is not None:
            session.record = replace(session.record, blocked=True)
            if session.created:
                self._pool.spawn(self._records.save(session.record), "block")

    def senders(self) -> set[object]:
        """Return whose credentials the turns were sent with that have not ended."""
        turns = (course for session in self._sessions.values() for course in session.unended())
        return {course.sender for course in turns}

    def revoke(self, senders: Collection[object]) -> None:
        """Stop the turns of senders whose credential is not valid any more."""
        for session in list(self._sessions.values()):
            for course in session.unended():
                if course.sender in senders:
                    course.revoke()

    # Shutting down.

    def drain(self) -> None:
        """Takes no new turns, and withdraws those that wait."""
        self._pool.drain()

    @property
    def running(self) -> int:
        """How many turns have not ended."""
        return sum(len(session.unended()) for session in self._sessions.values())

    def interrupt_all(self) -> None:
        """Tells every turn that still runs that the server goes away, and interrupts it."""
        for session in list(self._sessions.values()):
            for course in session.unended():
                course.turn.tell(Notice("draining", "the server is going away"))
                course.interrupt()

    def release(self) -> None:
        """Forgets every held turn, so that no timer is left."""
        self._held.release()
