"""The runner of one turn, from waiting for a process to the end of its streams.

A runner is background work, so that it goes on when the caller is cancelled. It does not depend
on gRPC, SQL or the agent's protocol.
"""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from typing import Protocol

import msgspec
import structlog

from samovard.core.errors import (
    Difference,
    IdTaken,
    Internal,
    NoProcess,
    SamovarError,
    TranscriptLost,
    TurnWithdrawn,
)
from samovard.core.events import Notice, Outcome, Usage
from samovard.core.pool import telemetry as process_telemetry
from samovard.core.pool.pool import Pool
from samovard.core.pool.pooled_process import Lease, turn_lost
from samovard.core.pool.queue import Waiter
from samovard.core.process import Deny, Launch, PermissionDecision
from samovard.core.records import TurnRecord
from samovard.core.sessions.conversation import Conversation, TurnRequest
from samovard.core.sessions.write_behind import WriteBehindRecords
from samovard.core.turn import telemetry
from samovard.core.turn.replay import already
from samovard.core.turn.retention import EventRetention
from samovard.core.turn.turn import Disconnect, Phase, StreamBounds, Turn
from samovard.core.turn.watchdog import Watchdog
from samovard.telemetry.context import parse
from samovard.telemetry.facts import TurnFacts
from samovard.telemetry.stages import stage

_log = structlog.get_logger("samovard.turn")


class SessionTurns(Protocol):
    """The session of a runner's turn."""

    @property
    def crowded(self) -> bool:
        """True if another turn of the session has not ended."""

    def ended(self, turn: Turn) -> None:
        """Called once the streams of a turn have ended."""


class TurnRunner:
    """The runner of one turn, which is also told about the turn's followers and limits.

    `done` is completed when nothing is left to do for the turn. `sender` identifies the
    credential that the turn was sent with; it is None once that was revoked.
    """

    def __init__(
        self,
        request: TurnRequest,
        *,
        conversation: Conversation,
        turns: SessionTurns,
        pool: Pool,
        records: WriteBehindRecords,
        facts: TurnFacts,
        retention: EventRetention,
        bounds: StreamBounds,
    ) -> None:
        self._conversation = conversation
        self._turns = turns
        self._pool = pool
        self._records = records
        self.sender = request.sender
        self.turn = Turn(
            request.key,
            conversation.prompt(request.prompt),
            request.digest,
            owner=self,
            facts=facts,
            retention=retention,
            on_disconnect=request.on_disconnect,
            limits=conversation.limits(request.limits),
            budget=conversation.budget(),
            permission_timeout=conversation.profile.permission_timeout,
            bounds=bounds,
        )
        self._patience = (
            request.patience
        )  # also of a process that replaces one, whose wait is short
        self._waiter: Waiter | None = None
        self._lease: Lease | None = None
        self._withdrawn: SamovarError | None = None
        self.recorded = False
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def withdrawn(self) -> bool:
        """True if the turn is about to end without having begun."""
        return self._withdrawn is not None and self.turn.phase in (Phase.WAITING, Phase.OPENING)

    # Called by the turn, by clients and by operators.

    def on_sender_left(self) -> None:
        """Withdraw a turn that has not begun, or interrupt it if its policy says so."""
        turn = self.turn
        if turn.phase in (Phase.WAITING, Phase.OPENING):
            self.withdraw(TurnWithdrawn())
        elif turn.on_disconnect is Disconnect.INTERRUPT:
            self.interrupt()

    def on_full(self, *, full: bool) -> None:
        """Stop reading from the agent while the turn's `Send` stream is full."""
        if self._lease is None or not self._lease.valid:
            return
        handle = self._lease.process.handle
        if full:
            handle.pause()
        else:
            handle.resume()
        self.turn.hold_watch(held=full)  # the stream is slow, not the agent

    def on_limit(self, what: str) -> None:
        """Interrupt a turn that has reached a limit."""
        self.interrupt(limit=what)

    def on_decided(self, request_id: str, decision: PermissionDecision) -> None:
        """Pass a decision to the agent, if the turn still holds it."""
        if self._lease is not None and self._lease.valid:
            self._lease.process.handle.decide(request_id, decision)

    def on_waiting(self, *, waits: bool) -> None:
        """Hold the watchdog while the turn waits for an answer."""
        self.turn.hold_watch(held=waits)

    def respond(self, permission_id: str, decision: PermissionDecision) -> None:
        """Answer a permission request. Return once the agent was told.

        Raise `PermissionNotFound` if the request is not open.
        """
        fresh = self.turn.permissions.respond(permission_id, decision)
        # A denial with an interrupt stops only the sub-agent that asked (measured on 2.1.330),
        # so the turn is interrupted as well.
        if fresh and isinstance(decision, Deny) and decision.interrupt:
            self.interrupt()

    async def clash(self, digest: bytes) -> SamovarError:
        """Return the error for a reused turn id with different content."""
        stored = None
        if not self.recorded:  # an earlier turn of that id may have the content of the request
            stored = await self._records.load_turn(self.turn.key, self.turn.turn_id)
        if stored is not None:
            return already(stored, digest)
        return IdTaken("turn_id", Difference("content"))

    def withdraw(self, error: SamovarError) -> None:
        """End the turn with an error, unless its prompt is written by then."""
        self._withdrawn = error
        if self._waiter is not None:
            self._pool.withdraw(self._waiter, error)

    def interrupt(self, *, limit: str = "") -> None:
        """Withdraw or interrupt the turn. `limit` describes the limit that it reached, if any.

        Return once the agent was told. If it was told before, the first reason counts.
        """
        if self.turn.phase in (Phase.WAITING, Phase.OPENING):
            self.withdraw(TurnWithdrawn())
        elif self._lease is not None and not self.turn.report.done():
            self.turn.unwatch()  # an interrupt has a timeout of its own
            self.turn.permissions.close()
            self.turn.hurry()  # an agent that blocks on its pipe could not answer
            if self._pool.interrupt(self._lease) and limit:
                self.turn.limited = True
                notice = Notice("limit-reached", f"the turn reached its bound of {limit}")
                self.turn.tell(notice)

    def revoke(self) -> None:
        """Stop the turn, because the credential that it was sent with is no longer valid."""
        self.sender = None
        told = "the credential that the turn was sent with is not valid any more"
        self.turn.tell(Notice("credential-revoked", told))
        self.interrupt()

    def _stalled(self, lease: Lease) -> None:
        """Lose a turn that makes no progress, and stop its process, which may hang."""
        turn, watchdog = self.turn, self.turn.watchdog
        if turn.report.done() or not lease.valid or watchdog is None:
            return
        seconds = self._conversation.clocks.monotonic() - watchdog.since
        process_telemetry.stalled(lease.process, turn.facts.recorder, watchdog.phase, seconds)
        self._pool.stop(lease.process, "stalled")

    # The run itself.

    async def run(self) -> None:
        """Run the turn to its end, and end its streams. Its errors are raised by the streams."""
        error: SamovarError | None = None
        try:
            await self._begin()
            error = await self._finish()
        except SamovarError as failure:
            error = failure
        except Exception:
            # Not raised: the streams of a turn must end even if the runner has a defect.
            _log.exception("defect", **self.turn.facts.ids)
            error = Internal("the service broke a rule of its own", cause="defect")
            error.prompt_written = self.turn.phase is Phase.RUNNING
        finally:
            self.turn.unwatch()
            self.turn.limit_guard.stop()
        telemetry.judged(self.turn.facts, self.turn.last_sequence, error)
        try:
            await self._audited()
        finally:
            self.turn.end(error)
            self.turn.facts.turn_ended()
        self._turns.ended(self.turn)
        self.done.set_result(None)  # last: a close and a repeated turn wait for it

    async def _begin(self) -> None:
        """Get a process and write the prompt. Replace once a process that dies before that."""
        for last in (False, True):
            try:
                self._lease = await self._acquire(again=last)
                await self._open(self._lease)
                return
            except NoProcess as error:
                if last or error.cause != "process-died":
                    raise
            except TranscriptLost:
                # If no transcript was ever seen, nothing is lost and the agent may start over.
                if last or self._conversation.record.finished:
                    raise
                self._conversation.start_over()
            self.turn.phase = Phase.WAITING
            self.turn.stages.forget("process_ready")

    async def _acquire(self, *, again: bool) -> Lease:
        if self._withdrawn is not None:
            raise self._withdrawn
        loop = asyncio.get_running_loop()
        session = self._conversation
        waiter = self._waiter = Waiter(
            self.turn, self._launch, session.exists, loop.time(), self._patience
        )
        self._pool.request(waiter, first=again)
        try:
            # Most turns find their process idle: what is granted at once waited for nothing.
            at_once = waiter.lease.done()
            lease = waiter.lease.result() if at_once else await self._granted(waiter)
        finally:
            self._waiter = None
        self.turn.phase = Phase.OPENING
        stage(self.turn.stages, "process_ready")
        process_telemetry.leased(self.turn.facts, lease)
        return lease

    def _launch(self) -> Launch:
        return replace(self._conversation.launch(), traceparent=self.turn.facts.traceparent)

    async def _granted(self, waiter: Waiter) -> Lease:
        facts = self.turn.facts
        error: SamovarError | None = None
        process = self._pool.process_of(waiter.key)
        obstacle = process_telemetry.obstacle(process, others=self._turns.crowded)
        wait = facts.waits_for(obstacle, self._pool.waiting)
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(self._pool.limits.max_wait, self._pool.expire, waiter)
        try:
            return await waiter.lease
        except SamovarError as failure:
            error = failure
            raise
        finally:
            expiry.cancel()
            start = process_telemetry.start_for(self._pool.process_of(waiter.key))
            telemetry.waited(facts, wait, start, error)

    async def _open(self, lease: Lease) -> None:
        """Record the turn and write its prompt. Undo the record if the prompt is not written."""
        session, turn = self._conversation, self.turn
        before = session.record, session.created
        try:
            await self._record(lease)
            await self._write(lease)
        except SamovarError:
            self._pool.give_back(lease)
            if self.recorded:
                session.take(before[0])
                session.created = before[1]
                kept = session.record if session.created else None
                await self._records.withdraw(turn.key, turn.turn_id, kept)
                self.recorded = False
            raise
        if self._withdrawn is not None:  # while the prompt was being written
            self.interrupt()

    async def _record(self, lease: Lease) -> None:
        session, turn = self._conversation, self.turn
        turn.facts.previous = parse(session.record.traced)  # before `take` replaces the record
        begun = session.begun(turn.facts.traceparent)
        allowed = turn.facts.call.audited.begin()  # in parallel with the store
        with turn.stages.part("record"):
            stored = await self._records.begin_turn(begun, TurnRecord(turn.turn_id, turn.digest))
        if stored is not None:
            raise already(stored, turn.digest)
        session.take(begun)
        session.created = self.recorded = True
        await allowed
        if self._withdrawn is not None:
            raise self._withdrawn
        session.admit()  # again: the session may have been blocked meanwhile
        if not lease.valid:
            raise NoProcess("the process died", cause="process-died", retry_after=1.0)

    async def _write(self, lease: Lease) -> None:
        prompt = self.turn.prompt
        if traceparent := self.turn.facts.traceparent:
            prompt = replace(prompt, traceparent=traceparent)
        try:
            await lease.process.handle.write(prompt, lambda: self._written(lease))
        except NoProcess:
            if lease.valid:  # it will never answer this turn, so it cannot be reused
                self._pool.stop(lease.process, "deaf")
            raise

    def _written(self, lease: Lease) -> None:
        turn = self.turn
        stage(turn.stages, "prompt_write")
        self._pool.run(lease)
        turn.phase = Phase.RUNNING
        started = lease.turn_started()
        telemetry.began(turn.facts, started)
        clock, patience = self._conversation.clocks.monotonic, self._conversation.profile.patience
        turn.watchdog = Watchdog(patience, clock, lambda: self._stalled(lease))
        turn.append(
            [started, *self._conversation.anew_notices()], 0, more=True
        )  # the agent may answer at once
        turn.forget_prompt()
        turn.limit_guard.start()  # the time in the queue does not count

    async def _finish(self) -> SamovarError | None:
        """Store the outcome of the turn. Append its report, or return the error it ends with."""
        turn = self.turn
        try:
            report = await turn.report
        except SamovarError as error:
            estimate = self._lease.process.handle.spent if self._lease is not None else Usage()
            lost = TurnRecord(turn.turn_id, turn.digest, "lost", error.reason, error.cause)
            lost = replace(lost, last_sequence=turn.last_sequence, estimate=estimate)
            telemetry.spent(turn.facts, estimate, estimated=True)
            await self._look_for_transcript()
            # The result is ignored: the turn is lost whether or not this is stored in time.
            await self._commit(lost, estimate)
            return error
        if turn.limited and report.outcome is Outcome.INTERRUPTED:
            report = msgspec.structs.replace(report, outcome=Outcome.LIMIT_REACHED)
        report = msgspec.structs.replace(report, timings=turn.timings())
        telemetry.reported(turn.facts, report)
        self._conversation.heard(report)
        await self._look_for_transcript()
        told = self._audited()  # in parallel with the store
        last = turn.last_sequence + 1
        record = TurnRecord(turn.turn_id, turn.digest, "finished", "", "", last, report)
        if not await self._commit(record, report.usage):
            assert self._lease is not None
            return turn_lost(self._lease, "store-down")
        await told
        # The time is that of the stage, so that a replay from the store has the same.
        turn.append([report], len(report.result), at=report.told_at)
        return None

    def _audited(self) -> Awaitable[None]:
        """Write the outcome to the audit log. It must be awaited before any stream ends."""
        facts = self.turn.facts
        return facts.call.audited.turn_ended(facts)

    async def _look_for_transcript(self) -> None:
        """Record that the agent has a transcript: an interrupted turn may end without one."""
        session, lease = self._conversation, self._lease
        # Checked only until a transcript was seen: later turns do not pay for it.
        if session.record.finished or lease is None:
            return
        with self.turn.stages.part("commit"):
            if await lease.process.handle.kept():
                session.keep()

    async def _commit(self, record: TurnRecord, usage: Usage) -> bool:
        """Store the outcome of the turn. Return False if the store is down and it is queued."""
        session = self._conversation
        session.record = session.over(usage)
        self.turn.limit_guard.spent(usage.cost_usd)
        with self.turn.stages.part("commit"):
            return await self._records.commit(session.record, record)
