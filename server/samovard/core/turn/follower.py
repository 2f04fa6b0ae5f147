"""One stream of a turn: its position in the event log, and its backpressure.

A follower reports only changes between full and not full; the turn decides what that means for
the agent. A follower depends neither on the turn's runner nor on the reader of the stream.
"""

import asyncio
from types import TracebackType
from typing import Protocol, Self

from samovard.core.errors import ReaderTooSlow, SamovarError
from samovard.core.turn.event_log import Batch, EventLog, cut
from samovard.telemetry.facts import TurnFacts
from samovard.telemetry.incidents import incident

#: About how many bytes are handed out at once. Events handed out no longer count as unread.
PORTION = 1 << 20
#: The same for the first time, so that a subscriber that joins late gets its first event soon.
FIRST_PORTION = 64 << 10


class Followed(Protocol):
    """The turn, as its streams see it. Every method returns at once."""

    @property
    def turn_id(self) -> str:
        """The turn's lower-case UUID."""

    @property
    def event_log(self) -> EventLog:
        """The turn's event log."""

    @property
    def facts(self) -> TurnFacts:
        """The turn's telemetry."""

    @property
    def ended(self) -> bool:
        """True if no more events will be appended."""

    @property
    def error(self) -> SamovarError | None:
        """The error that ended the turn, None if it succeeded or has not ended."""

    def was_read(self) -> None:
        """Called when a stream has handed out events."""

    def on_follower_full(self, follower: "Follower") -> None:
        """Called when a stream becomes full or is no longer full."""

    def leave(self, follower: "Follower") -> None:
        """Called, possibly more than once, when a stream has ended."""


class Follower:
    """One stream of a turn: an async iterator of lists of batches, in order, each once.

    Iteration ends when the turn ends, and raises the turn's error if there is one. It raises
    `ReaderTooSlow` if the reader takes nothing for `slow` seconds while `bound` bytes are
    unread, or if the next events were dropped. Cancelling the iteration loses no events.

    A follower starts after `after`, the number of the last event that its reader has seen. The
    constructor raises `EventsExpired` if the next event was dropped. An async context manager:
    leaving it before the end loses the stream. Only one task may iterate at a time.
    """

    def __init__(self, turn: Followed, after: int, bound: int, slow: float) -> None:
        self.turn = turn
        self._log = turn.event_log
        self._bound = bound
        self._patience = slow
        self.sequence = after  # the last event handed out
        self.position = self._log.find(after)
        self.full = False
        self._taken = self._log.before(self.position)
        self._portion = FIRST_PORTION
        self._error: SamovarError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._slow: asyncio.TimerHandle | None = None  # while it is full

    @property
    def unread(self) -> int:
        """The bytes of events that are not handed out yet."""
        return self._log.total - self._taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Batch]:
        while self._error is None:
            if self.position < self._log.end:
                batches = self._log.take(self.position, self._portion)
                if batches is not None:
                    return self._hand_out(batches)
                self._drop()  # retention dropped what was unread
            elif self.turn.ended:  # only now: all events come before the turn's error
                self._error = self.turn.error
                break
            else:
                self._waiting = asyncio.get_running_loop().create_future()
                try:
                    await self._waiting
                finally:
                    self._waiting = None
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def _hand_out(self, batches: list[Batch]) -> list[Batch]:
        # A stream may begin in the middle of a batch.
        if batches[0].sequence <= self.sequence:
            batches[0] = cut(batches[0], self.sequence)
        newest = batches[-1]
        self.position += len(batches)
        self.sequence = newest.sequence + len(newest.events) - 1
        self._taken = newest.end
        self._portion = PORTION
        if self.full:
            self._look()
        self.turn.was_read()
        return batches

    def wake(self) -> None:
        """Wake the iterator after a change of the turn, and check whether the stream is full."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        # A full stream can only change by being read, which `_hand_out` checks.
        if not self.full and self._log.total - self._taken >= self._bound:
            self._look()

    def _look(self) -> None:
        """Update `full`, report a change to the turn, and restart the timer while full."""
        full = self.unread >= self._bound
        self._stop_counting()  # anew with each portion: a slow but steady reader is kept
        if full:
            loop = asyncio.get_running_loop()
            self._slow = loop.call_later(self._patience, self._drop)
        if full is not self.full:
            self.full = full
            self.turn.on_follower_full(self)

    def _stop_counting(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _drop(self) -> None:
        """End only this stream, with `ReaderTooSlow`."""
        seen = {"read": self.sequence, "unread": self.unread}
        facts = self.turn.facts
        incident(facts.recorder, "reader.too_slow", **facts.ids, **seen)
        metadata = {"turnId": self.turn.turn_id, "lastSequence": str(self.sequence)}
        self._error = ReaderTooSlow("the stream was not read fast enough", metadata=metadata)
        self.leave()

    def leave(self) -> None:
        """Stop following the turn. Idempotent."""
        self._stop_counting()
        self.turn.leave(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()
