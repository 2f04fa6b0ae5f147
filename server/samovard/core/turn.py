"""One turn: its events, who follows them, and its one end.

Knows nothing of processes or of who called. A turn waits, runs and ends; an RPC only
follows it, through a `Follower`.
"""

import asyncio
import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from samovard.core import permissions
from samovard.core.errors import EventsExpired, ReaderTooSlow, SamovarError
from samovard.core.events import Event, TextDelta, Timings, TurnFinished
from samovard.core.permissions import Permissions
from samovard.core.process import Prompt
from samovard.core.records import SessionKey
from samovard.core.watchdog import Watchdog
from samovard.telemetry.stages import Stages, stage


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


class Batch(NamedTuple):
    """Events that were ready together: numbered from `sequence`, at `time`, of `size` bytes."""

    sequence: int
    time: float
    events: Sequence[Event]
    size: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a turn may hold: `hold` bytes of old events, `unread` bytes for its reader.

    `slow` is how long, in seconds, a reader may stay at that bound.
    """

    hold: int = 8 << 20
    unread: int = 4 << 20
    slow: float = 10.0


class Owner(permissions.Owner, Protocol):
    """Whoever runs the turn: it hears what its followers do to it."""

    def on_lost(self, turn: "Turn") -> None:
        """Hears that the turn's last `Send` stream is gone before its end."""

    def on_full(self, turn: "Turn", *, full: bool) -> None:
        """Hears that the reader reached its bound, or no longer stands at it."""


class Turn:
    """One user message and everything the agent does until its result."""

    def __init__(
        self,
        key: SessionKey,
        prompt: Prompt,
        digest: bytes,
        owner: Owner,
        stages: Stages,
        *,
        on_disconnect: Disconnect = Disconnect.INTERRUPT,
        timeout: float | None = None,
        permission_timeout: float = 5 * 60.0,
        bounds: Bounds | None = None,
    ) -> None:
        self.key = key
        self.prompt = prompt
        self.digest = digest
        self.stages = stages
        self.on_disconnect = on_disconnect
        self.timeout = timeout
        self.phase = Phase.WAITING
        self.limited = False
        self.bounds = bounds or Bounds()
        self.watchdog: Watchdog | None = None  # from the prompt to the end
        self.permissions = Permissions(stages, permission_timeout, owner, self._tell)
        self._owner = owner
        self._batches: deque[Batch] = deque()
        self._dropped = 0  # batches no longer held, so that followers can count from the first
        self._held_bytes = 0
        self._last = 0
        self.total_bytes = 0
        self._followers: set[Follower] = set()
        self._sender: Follower | None = None
        self._full = False
        self.error: SamovarError | None = None
        self.report: asyncio.Future[TurnFinished] = asyncio.get_running_loop().create_future()
        self.report.add_done_callback(_seen)

    def __repr__(self) -> str:
        return (
            f"<Turn {self.prompt.turn_id} {self.phase.name} "
            f"events={self._last} followers={len(self._followers)}>"
        )

    @property
    def turn_id(self) -> str:
        """The turn's lower-case UUID."""
        return self.prompt.turn_id

    @property
    def last_sequence(self) -> int:
        """The number of the newest event, 0 before the first."""
        return self._last

    @property
    def followed(self) -> bool:
        """Tells whether anybody listens."""
        return bool(self._followers)

    def append(self, events: Sequence[Event], size: int, *, at: float | None = None) -> None:
        """Adds events of `size` bytes, of this moment or another; none if it does not run."""
        if self.phase is not Phase.RUNNING or not events:
            return
        self._take_marks(events)
        time = self.stages.wall_now() if at is None else at
        self._batches.append(Batch(self._last + 1, time, events, size))
        self._last += len(events)
        self._held_bytes += size
        self.total_bytes += size
        self._trim()
        self._wake()
        self._look_at_reader()

    def finish(self, report: TurnFinished) -> None:
        """Takes the agent's report; whoever runs the turn stores it before it is told."""
        if not self.report.done():
            stage(self.stages, "first_event")  # a report alone is an answer, too
            self.permissions.close()
            stage(self.stages, "finish")
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
            self.phase = Phase.ENDED
            self.error = error
            self._sender = None
            self._wake()

    def timings(self) -> Timings:
        """Gives the wall time of each mark that was reached, and the wait for permissions."""
        times = {name: self.stages.wall_time(name) for name in Timings.__struct_fields__}
        return Timings(**times | {"permission_wait": self.permissions.waited})

    def follow(self, after: int = 0, *, sends: bool = False) -> "Follower":
        """Follows the turn after a sequence number; `sends`: as (one of) its `Send` streams."""
        follower = Follower(self, after, sends=sends)
        self._followers.add(follower)
        if sends:
            self._sender = follower
        return follower

    def leave(self, follower: "Follower") -> None:
        """Forgets a follower. If it was the turn's `Send` stream, the turn is lost."""
        self._followers.discard(follower)
        if follower is self._sender:
            self._sender = None
            self._owner.on_lost(self)
        self._look_at_reader()

    def after(self, batch: int, sequence: int) -> tuple[list[Batch], int]:
        """Gives what is held from a batch number on, past a sequence number; and the next.

        Raises `EventsExpired` if the event after `sequence` is no longer held.
        """
        first = max(batch - self._dropped, 0)
        held = [self._batches[index] for index in range(first, len(self._batches))]
        if sequence < self._last and (not held or held[0].sequence > sequence + 1):
            raise self._expired()
        return [cut(b, sequence) for b in held if b.sequence + len(b.events) - 1 > sequence], (
            self._dropped + len(self._batches)
        )

    def _tell(self, event: Event) -> None:
        self.append([event], 0)

    def _expired(self) -> EventsExpired:
        metadata = {"lastSequence": str(self._last)}
        if self._batches:
            metadata["oldestSequence"] = str(self._batches[0].sequence)
        return EventsExpired("the next event is no longer held", metadata=metadata)

    def _take_marks(self, events: Sequence[Event]) -> None:
        if self.stages.reached("first_text"):
            return
        # The first thing appended to a running turn is our own `turn_started`.
        if self._last > 0:
            stage(self.stages, "first_event")
        if any(isinstance(event, TextDelta) for event in events):
            stage(self.stages, "first_text")

    def _trim(self) -> None:
        read = self._sender.sequence if self._sender else self._last
        while self._held_bytes > self.bounds.hold and len(self._batches) > 1:
            oldest = self._batches[0]
            if oldest.sequence + len(oldest.events) - 1 > read:
                return
            self._batches.popleft()
            self._dropped += 1
            self._held_bytes -= oldest.size

    def _wake(self) -> None:
        for follower in tuple(self._followers):
            follower.wake()

    def look_at_reader(self) -> None:
        """Looks again whether the reader stands at its bound."""
        self._trim()
        self._look_at_reader()

    def _look_at_reader(self) -> None:
        full = self._sender is not None and self._sender.unread >= self.bounds.unread
        if full is not self._full:
            self._full = full
            self._owner.on_full(self, full=full)

    def drop_slow_reader(self) -> None:
        """Drops the `Send` stream that stands at its bound, as a lost stream is."""
        if self._full and self._sender is not None:
            error = ReaderTooSlow(
                "the stream was not read fast enough",
                metadata={
                    "turnId": self.turn_id,
                    "lastSequence": str(self._sender.sequence),
                },
            )
            self._sender.drop(error)


class Follower:
    """One stream of a turn: an async iterator of lists of batches, in order, each once.

    It ends as the turn ends: quietly, or with the turn's error. An async context
    manager; leaving it before the end loses the stream. One task iterates at a time.
    """

    def __init__(self, turn: Turn, after: int, *, sends: bool) -> None:
        self.turn = turn
        self.sequence = after  # the last event handed out
        self.sends = sends
        self._batch = 0
        self._taken_bytes = 0
        self._error: SamovarError | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def unread(self) -> int:
        """The bytes of events not yet handed out."""
        return self.turn.total_bytes - self._taken_bytes

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Batch]:
        while self._error is None:
            batches, self._batch = self.turn.after(self._batch, self.sequence)
            if batches:
                last = batches[-1]
                self.sequence = last.sequence + len(last.events) - 1
                self._taken_bytes = self.turn.total_bytes
                self.turn.look_at_reader()
                return batches
            if self.turn.phase is Phase.ENDED:
                self._error = self.turn.error
                break
            await self._wait()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def _wait(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def wake(self) -> None:
        """Makes the iterator look again."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def drop(self, error: SamovarError) -> None:
        """Ends this stream alone, with an error."""
        self._error = error
        self.turn.leave(self)
        self.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.turn.leave(self)


def cut(batch: Batch, sequence: int) -> Batch:
    """Gives the part of a batch behind a sequence number."""
    if batch.sequence > sequence:
        return batch
    return batch._replace(
        sequence=sequence + 1, events=batch.events[sequence + 1 - batch.sequence :]
    )


def _seen(report: asyncio.Future[TurnFinished]) -> None:
    # Whoever runs the turn reads the report; one that ended earlier has nobody to read it.
    if not report.cancelled():
        report.exception()
