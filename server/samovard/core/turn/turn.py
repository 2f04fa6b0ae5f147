"""One turn: its events, the streams that follow it, and its one end.

A turn waits, opens, runs and ends. An RPC never is the turn: it follows it, through a `Follower`,
and may leave and come again. What the loss of the last `Send` stream does is the turn's policy.

Flow control. The agent's lines become events, which `append` numbers and keeps in the log. Each
follower has a position in it. Three bounds meet here:

* `bounds.unread`: a stream with so many unread bytes is full. It tells the turn of that change,
  and of the one back. If it is the `Send` stream, the owner stops reading from the agent, which
  then waits on its pipe, and the watchdog waits with it. Any other stream slows nobody down.
* `bounds.slow`: a stream that stays full for so long is dropped, alone, with an error.
* `bounds.hold`, and `EventRetention` over all turns: what was read is dropped, oldest first; what
  the `Send` stream has not read is not.

Nobody asks for a threshold again and again: the log has plain numbers, a follower reports the
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
from samovard.core.turn.limits import LimitGuard, Limits
from samovard.core.turn.permissions import Permissions
from samovard.core.turn.retention import EventRetention
from samovard.core.turn.watchdog import Watchdog
from samovard.telemetry.facts import TurnFacts
from samovard.telemetry.stages import stage

#: How long, in seconds, events wait for others that are about to follow: a response of their
#: own takes 0.1 ms of the loop, for which the others would wait.
LINGER = 0.002


class Phase(enum.Enum):
    """Where a turn is. `OPENING`: it holds a lease and its prompt is not written."""

    WAITING = enum.auto()
    OPENING = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


class Disconnect(enum.Enum):
    """What the loss of the last `Send` stream does to a turn that began."""

    INTERRUPT = enum.auto()
    CONTINUE = enum.auto()


@dataclass(frozen=True, slots=True)
class StreamBounds:
    """What a turn may hold: `hold` bytes of old events, `unread` bytes for its reader.

    `slow` is how long, in seconds, a reader may stay at that bound; `streams` how many
    may follow the turn before the next `Attach` is refused.
    """

    hold: int = 8 << 20
    unread: int = 4 << 20
    slow: float = 10.0
    streams: int = 32


class Owner(permissions.Owner, Protocol):
    """Runs the turn, and is told what its followers do to it."""

    def on_lost(self) -> None:
        """Called when the turn's last `Send` stream is gone before its end."""

    def on_limit(self, what: str) -> None:
        """Called once, when the turn reaches a bound, with its name."""

    def on_full(self, *, full: bool) -> None:
        """Called when the reader reaches its bound, or no longer stands at it."""


class Turn:
    """One user message and everything the agent does until its result."""

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
        self.limits = LimitGuard(limits or Limits(), owner.on_limit)
        self.phase = Phase.WAITING
        self.ended = False  # its streams have nothing more to wait for
        self.limited = False
        self.bounds = bounds or StreamBounds()
        self.watchdog: Watchdog | None = None  # from the prompt to the end
        self.permissions = Permissions(self.stages, permission_timeout, owner, self.tell)
        self._owner = owner
        self._retention = retention
        self._hurried = False  # it no longer waits for its reader
        self.event_log = EventLog()
        self._followers: set[Follower] = set()
        self._sender: Follower | None = None
        self._has_text = False
        self._full = False  # what the owner was told last
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
        """The number of the newest event, 0 before the first."""
        return self.event_log.last

    @property
    def followed(self) -> bool:
        """Tells whether anybody listens."""
        return bool(self._followers)

    def append(
        self, events: Sequence[Event], size: int, *, at: float | None = None, more: bool = False
    ) -> None:
        """Adds events of `size` bytes, of this moment or another; none if it does not run.

        `more` are about to follow: these are told with them, or in `LINGER` at the latest.
        """
        if self._hurried and self._sender is not None and self._sender.full:
            # It waits for no reader any more, and what was said stands in the report, too.
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
        """Drop the prompt's content. A turn is held for a while, its files need not be."""
        if self.prompt.content:
            self.prompt = replace(self.prompt, content=())

    def hurry(self) -> None:
        """Waits for its reader no longer: deltas that do not fit are dropped from now on."""
        self._hurried = True
        self._tell_owner()

    def hold_watch(self, *, held: bool) -> None:
        """Let the watchdog wait while the turn waits for something else than its agent."""
        if self.watchdog is not None:
            if held:
                self.watchdog.hold()
            else:
                self.watchdog.release()

    def unwatch(self) -> None:
        """Watch no longer whether the turn gets on. Idempotent."""
        if self.watchdog is not None:
            self.watchdog.stop()

    def finish(self, report: TurnFinished) -> None:
        """Takes the agent's report; whoever runs the turn stores it before it is told."""
        if not self.report.done():
            stage(self.stages, "first_event")  # a report alone is an answer, too
            self.permissions.close()
            stage(self.stages, "finish")
            self.hurry()  # what the agent owes behind its report is read
            self.report.set_result(report)

    def lose(self, error: SamovarError) -> None:
        """Takes note that there will be no report."""
        if not self.report.done():
            self.permissions.close()
            self.report.set_exception(error)

    def end(self, error: SamovarError | None = None) -> None:
        """Ends every stream of the turn, with an error or with OK. Only the first end counts."""
        if self.phase is not Phase.ENDED:
            self.permissions.close()
            self.forget_prompt()
            self.phase, self.ended = Phase.ENDED, True
            self.error = error
            self._wake()

    def timings(self) -> Timings:
        """Gives the wall time of each mark that was reached, and the wait for permissions."""
        times = self.stages.wall_times(Timings.__struct_fields__)
        return Timings(**times | {"permission_wait": self.permissions.waited})

    def follow(self, after: int = 0, *, sends: bool = False) -> Follower:
        """Follows the turn after a sequence number; `sends`: as (one of) its `Send` streams.

        Raise `EventsExpired` if the next event is no longer held, and `QuotaExceeded` if too
        many streams follow the turn: a `Send` that comes again is never refused for that.
        """
        if not sends and len(self._followers) >= self.bounds.streams:
            raise _crowded(self.turn_id, self.bounds.streams)
        follower = Follower(self, after, self.bounds.unread, self.bounds.slow)
        self._followers.add(follower)
        if sends:
            self._sender = follower
        follower.wake()
        self._tell_owner()
        return follower

    def was_read(self) -> None:
        """Called when one of its streams was given events: what is read may be dropped."""
        if self.event_log.bytes > self.bounds.hold:
            self._trim()
        elif self._retention.crowded:
            self._retention.resize(self, self.event_log.bytes)

    def on_follower_full(self, follower: Follower) -> None:
        """Called when a stream has reached its bound, or no longer stands at it."""
        if follower is self._sender:
            self._tell_owner()

    def leave(self, follower: Follower) -> None:
        """Forgets a follower. If it was the turn's `Send` stream, the turn is lost."""
        self._followers.discard(follower)
        if follower is self._sender:
            self._sender = None
            self._tell_owner()
            if not self.ended:
                self._owner.on_lost()
        self.was_read()

    def tell(self, event: Event) -> None:
        """Add an event that is not the agent's."""
        size = len(event.input_json) if isinstance(event, PermissionRequested) else 0
        self.append([event], size)

    def _take_marks(self, events: Sequence[Event]) -> None:
        # The first thing appended to a running turn is our own `turn_started`.
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
        """Drop what is too much for one turn, but neither what is unread nor the newest."""
        log = self.event_log
        limit = min(self._unread_from(), log.end - 1)
        while log.bytes > self.bounds.hold and log.drop_oldest(limit):
            pass
        self._retention.resize(self, log.bytes)

    def _unread_from(self) -> int:
        return self._sender.position if self._sender is not None else self.event_log.end

    def _tell_owner(self) -> None:
        """Tell the owner whether the reader stands at its bound, if that has changed."""
        full = self._sender is not None and self._sender.full and not self._hurried
        if full is not self._full:
            self._full = full
            self._owner.on_full(full=full)

    # What of it is held.

    @property
    def held_bytes(self) -> int:
        """The bytes of events that are held."""
        return self.event_log.bytes

    @property
    def read_bytes(self) -> int:
        """Those of them that its `Send` stream has read, or all without one."""
        unread = self._sender.unread if self._sender is not None else 0
        return self.held_bytes - unread

    @property
    def being_read(self) -> bool:
        """Tells whether there is something that its `Send` stream has not read."""
        return self._unread_from() < self.event_log.end

    def drop_oldest_read(self) -> bool:
        """Drops the oldest events unless they are unread; tells whether it did."""
        return self.event_log.drop_oldest(self._unread_from())

    def drop_all(self) -> None:
        """Drops every event: whoever has not read them is too slow."""
        self.event_log.clear()
        self._wake()


def _crowded(turn_id: str, most: int) -> QuotaExceeded:
    message = f"as many streams follow the turn as may: {most}"
    return QuotaExceeded(f"turn:{turn_id}", message, cause="streams", retry_after=1.0)


def _seen(report: asyncio.Future[TurnFinished]) -> None:
    # Whoever runs the turn reads the report; one that ended earlier has nobody to read it.
    if not report.cancelled():
        report.exception()
