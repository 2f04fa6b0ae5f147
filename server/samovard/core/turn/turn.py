"""One turn: its events, the streams that follow it, and its one end.

A turn waits, opens, runs and ends. An RPC never is the turn: it follows it, through a `Follower`,
and may leave and come again. What the loss of the last `Send` stream does is the turn's policy.

Flow control. The agent's lines become events, which `append` numbers and keeps in the log. Each
follower has a position in it. Three bounds meet here:

* `bounds.unread`: a stream with so many unread bytes is full. It tells the turn of that change,
  and of the one back. If it is the `Send` stream, the owner stops reading from the agent, which
  then waits on its pipe, and the watchdog waits with it. Any other stream slows nothing down.
* `bounds.slow`: a stream that stays full for so long is dropped, alone, with an error.
* `bounds.hold`, and `EventRetention` over all turns: what was read is dropped, oldest first; what
  the `Send` stream has not read is not.

No threshold is polled: the log has plain numbers, a follower reports the
change between full and not full, and retention is told sizes.

What always holds: each stream has one end (9). Events are numbered without a gap, from 1. The
report is the last event; a turn without a report ends with an error. `finish` and `lose` only take
note: the owner stores the outcome before it calls `end`, so that what a caller was told is stored.

The trap: an agent that is not read cannot answer an interrupt. So a turn that is told
to end is in a hurry: it is read whatever its reader does, and deltas that do not fit are dropped.

Do not await here, do not end a stream from outside of `end` and `Follower`, and do not hold what a
caller sent longer than until it is written. Knows nothing of processes or of who called.
"""

import asyncio
import enum
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from samovard.core.errors import QuotaExceeded, SamovarError
from samovard.core.events import (
    Event,
    PermissionRequested,
    TextDelta,
    ThinkingDelta,
    Timings,
    TurnFinished,
)
from samovard.core.process import Prompt
from samovard.core.records import SessionKey
from samovard.core.turn import permissions, telemetry
from samovard.core.turn.event_log import EventLog
from samovard.core.turn.follower import Follower
from samovard.core.turn.limits import Budget, LimitGuard, Limits
from samovard.core.turn.permissions import Permissions
from samovard.core.turn.retention import EventRetention
from samovard.core.turn.watchdog import Watchdog
from samovard.telemetry.facts import TurnFacts
from samovard.telemetry.stages import stage

#: How many seconds events wait for others that are about to follow: a response of their own
#: takes 0.1 ms of the event loop and would delay the others.
LINGER = 0.002


class Phase(enum.Enum):
    """The phase of a turn. In `OPENING` it holds a lease and its prompt is not written."""

    WAITING = enum.auto()
    OPENING = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


class Disconnect(enum.Enum):
    """The policy for a turn that has begun and loses its last `Send` stream."""

    INTERRUPT = enum.auto()
    CONTINUE = enum.auto()


@dataclass(frozen=True, slots=True)
class StreamBounds:
    """The limits of a turn's streams: `hold` bytes of read events, `unread` bytes per stream.

    `slow` is how many seconds a stream may stay at the `unread` limit. `streams` is how many
    streams may follow the turn before the next `Attach` is refused.
    """

    hold: int = 8 << 20
    unread: int = 4 << 20
    slow: float = 10.0
    streams: int = 32


class Owner(permissions.Owner, Protocol):
    """The runner of the turn, which is told about its followers and limits."""

    def on_sender_left(self) -> None:
        """Called when the turn's last `Send` stream is gone before its end."""

    def on_limit(self, what: str) -> None:
        """Called once, with a description of the limit that the turn reached."""

    def on_full(self, *, full: bool) -> None:
        """Called when the `Send` stream becomes full or is no longer full."""


class Turn:
    """One user message, and everything that the agent does until its result."""

    def __init__(
        self,
        key: SessionKey,
        prompt: Prompt,
        digest: bytes,
        *,
        owner: Owner,
        facts: TurnFacts,
        retention: EventRetention,
        on_disconnect: Disconnect = Disconnect.INTERRUPT,
        limits: Limits | None = None,
        budget: Budget | None = None,
        permission_timeout: float = 5 * 60.0,
        bounds: StreamBounds | None = None,
    ) -> None:
        self.key = key
        self.turn_id = prompt.turn_id
        self.prompt = prompt
        self.digest = digest
        self.facts = facts
        self.stages = facts.call.stages
        self.on_disconnect = on_disconnect
        self.limit_guard = LimitGuard(limits or Limits(), owner.on_limit, budget)
        self.phase = Phase.WAITING
        self.ended = False  # no more events will be appended
        self.limited = False
        self.bounds = bounds or StreamBounds()
        self.watchdog: Watchdog | None = None  # from the prompt to the end
        self.permissions = Permissions(self.stages, permission_timeout, owner, self.tell)
        self._owner = owner
        self._retention = retention
        self._hurried = False  # it is read even if its `Send` stream is full
        self.event_log = EventLog()
        self._followers: set[Follower] = set()
        self._sender: Follower | None = None
        self._has_text = False
        self._full = False  # the last value passed to the owner
        self._lingers: asyncio.TimerHandle | None = None
        self.error: SamovarError | None = None
        self.report: asyncio.Future[TurnFinished] = asyncio.get_running_loop().create_future()
        self.report.add_done_callback(_seen)

    def __repr__(self) -> str:
        return (
            f"<Turn {self.prompt.turn_id} {self.phase.name} "
            f"events={self.last_sequence} followers={len(self._followers)}>"
        )

    @property
    def last_sequence(self) -> int:
        """The sequence number of the newest event, 0 before the first."""
        return self.event_log.last

    @property
    def followed(self) -> bool:
        """True if any stream follows the turn."""
        return bool(self._followers)

    def append(
        self, events: Sequence[Event], size: int, *, at: float | None = None, more: bool = False
    ) -> None:
        """Append events of `size` bytes to the event log. Do nothing if the turn does not run.

        `at` is their time in seconds since the epoch, None for now. `more` is True if further
        events are about to follow: streams get all of them together, after `LINGER` at the
        latest.
        """
        if self._hurried and self._sender is not None and self._sender.full:
            # The agent is no longer slowed down, so memory would grow; the report has the text.
            events = [event for event in events if not isinstance(event, TextDelta | ThinkingDelta)]
        if self.phase is not Phase.RUNNING or not events:
            return
        if not self._has_text:
            self._take_marks(events)
        if self.facts.recorder.detailed:
            telemetry.noted(self.facts, events)
        if self.prompt.options.raw_json:
            size += sum(len(event.raw) for event in events)
        self.event_log.append(events, size, self.stages.wall_now() if at is None else at)
        if self.event_log.bytes > self.bounds.hold:
            self._trim()
        if not more:
            self._wake()
        elif self._lingers is None:
            self._lingers = asyncio.get_running_loop().call_later(LINGER, self._wake)
        self._retention.resize(self, self.event_log.bytes)

    def forget_prompt(self) -> None:
        """Drop the prompt's content, so that its files are not held as long as the turn."""
        if self.prompt.content:
            self.prompt = replace(self.prompt, content=())

    def hurry(self) -> None:
        """Stop applying backpressure: from now on deltas are dropped while a stream is full."""
        self._hurried = True
        self._tell_owner()

    def hold_watch(self, *, held: bool) -> None:
        """Hold the watchdog while the turn waits for something other than its agent."""
        if self.watchdog is not None:
            if held:
                self.watchdog.hold()
            else:
                self.watchdog.release()

    def unwatch(self) -> None:
        """Stop the watchdog. Idempotent."""
        if self.watchdog is not None:
            self.watchdog.stop()

    def finish(self, report: TurnFinished) -> None:
        """Set the agent's report. The runner stores it before any stream gets it."""
        if not self.report.done():
            stage(self.stages, "first_event")  # of a turn that has no event but its report
            self.permissions.close()
            stage(self.stages, "finish")
            self.hurry()  # a full stream must not delay the lines after the report
            self.report.set_result(report)

    def lose(self, error: SamovarError) -> None:
        """Set the error of a turn that will have no report. Streams do not end before `end`."""
        if not self.report.done():
            self.permissions.close()
            self.report.set_exception(error)

    def end(self, error: SamovarError | None = None) -> None:
        """End every stream of the turn, with an error or with OK. Only the first call counts."""
        if self.phase is not Phase.ENDED:
            self.permissions.close()
            self.forget_prompt()
            self.phase, self.ended = Phase.ENDED, True
            self.error = error
            self._wake()

    def timings(self) -> Timings:
        """Return the wall time of each stage that was reached, and the wait for permissions."""
        times = self.stages.wall_times(Timings.__struct_fields__)
        return Timings(**times | {"permission_wait": self.permissions.waited})

    def follow(self, after: int = 0, *, sends: bool = False) -> Follower:
        """Return a new stream of the events after a sequence number.

        `sends` is True if it is a `Send` stream: only the latest one of them applies
        backpressure. Raise `EventsExpired` if the next event was dropped, and `QuotaExceeded` if
        too many streams follow the turn. A repeated `Send` is never refused because of that.
        """
        if not sends and len(self._followers) >= self.bounds.streams:
            raise _crowded(self.turn_id, self.bounds.streams)
        follower = Follower(self, after, self.bounds.unread, self.bounds.slow)
        self._followers.add(follower)
        if sends:
            self._sender = follower
        follower.wake()  # it may be full from the start, which the owner must know
        self._tell_owner()
        return follower

    def was_read(self) -> None:
        """Called when a stream has read events, which may now be dropped."""
        if self.event_log.bytes > self.bounds.hold:
            self._trim()
        elif self._retention.crowded:
            self._retention.resize(self, self.event_log.bytes)

    def on_follower_full(self, follower: Follower) -> None:
        """Called when a stream becomes full or is no longer full; pass that on for `Send`."""
        if follower is self._sender:
            self._tell_owner()

    def leave(self, follower: Follower) -> None:
        """Remove a follower. If it is a running turn's `Send` stream, call `on_sender_left`."""
        self._followers.discard(follower)
        if follower is self._sender:  # an older `Send` stream was replaced: it has no effect
            self._sender = None
            self._tell_owner()
            if not self.ended:
                self._owner.on_sender_left()
        self.was_read()  # what only this stream had not read may be dropped now

    def tell(self, event: Event) -> None:
        """Append an event that does not come from the agent."""
        size = len(event.input_json) if isinstance(event, PermissionRequested) else 0
        self.append([event], size)

    def _take_marks(self, events: Sequence[Event]) -> None:
        # The first batch is the service's own `turn_started`, not an event of the agent.
        if self.event_log.last == 0:
            return
        stage(self.stages, "first_event")
        for event in events:
            if type(event) is TextDelta:
                self._has_text = True
                stage(self.stages, "first_text")
                return

    def _wake(self) -> None:
        if self._lingers is not None:
            self._lingers.cancel()
            self._lingers = None
        for follower in tuple(self._followers):
            follower.wake()

    def _trim(self) -> None:
        """Drop read events over the limit of one turn, but never the newest batch."""
        log = self.event_log
        limit = min(self._unread_from(), log.end - 1)
        while log.bytes > self.bounds.hold and log.drop_oldest(limit):
            pass
        self._retention.resize(self, log.bytes)

    def _unread_from(self) -> int:
        return self._sender.position if self._sender is not None else self.event_log.end

    def _tell_owner(self) -> None:
        """Tell the owner whether the `Send` stream is full, if that has changed."""
        full = self._sender is not None and self._sender.full and not self._hurried
        if full is not self._full:
            self._full = full
            self._owner.on_full(full=full)

    # Called by EventRetention.

    @property
    def held_bytes(self) -> int:
        """The bytes of the events in the event log."""
        return self.event_log.bytes

    @property
    def read_bytes(self) -> int:
        """The bytes that its `Send` stream has read; all of them without a `Send` stream."""
        unread = self._sender.unread if self._sender is not None else 0
        return self.held_bytes - unread

    @property
    def being_read(self) -> bool:
        """True if the `Send` stream has unread events."""
        return self._unread_from() < self.event_log.end

    def drop_oldest_read(self) -> bool:
        """Drop the oldest batch unless it is unread. Return True if it was dropped."""
        return self.event_log.drop_oldest(self._unread_from())

    def drop_all(self) -> None:
        """Drop all events. Streams that have not read them end with `ReaderTooSlow`."""
        # They find out at their next step, so they are woken.
        self.event_log.clear()
        self._wake()


def _crowded(turn_id: str, most: int) -> QuotaExceeded:
    message = f"as many streams follow the turn as may: {most}"
    return QuotaExceeded(f"turn:{turn_id}", message, cause="streams", retry_after=1.0)


def _seen(report: asyncio.Future[TurnFinished]) -> None:
    # A turn that ended before its prompt was written has no reader of its report: without this
    # asyncio would log that its exception was never retrieved.
    if not report.cancelled():
        report.exception()
