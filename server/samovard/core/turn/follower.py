"""One stream of a turn: what it has been given, and whether it is read fast enough.

A follower reports only the change between full and not full; what that means for the agent is
the turn's. Knows nothing of who runs the turn, or of who reads the stream.
"""

import asyncio
from types import TracebackType
from typing import Protocol, Self

from samovard.core.errors import ReaderTooSlow, SamovarError
from samovard.core.turn.event_log import Batch, EventLog, cut
from samovard.telemetry.facts import TurnFacts
from samovard.telemetry.incidents import incident

#: About how many bytes are handed out at once: what a reader has not asked for stays countable.
PORTION = 1 << 20
#: And at first, so that a reader who joins a turn late has its first event soon.
FIRST_PORTION = 64 << 10


class Followed(Protocol):
    """What a stream needs of its turn. Every method returns at once."""

    @property
    def turn_id(self) -> str:
        """The turn's lower-case UUID."""

    @property
    def event_log(self) -> EventLog:
        """The turn's events."""

    @property
    def facts(self) -> TurnFacts:
        """What is reported of the turn."""

    @property
    def ended(self) -> bool:
        """True if its streams have nothing more to wait for."""

    @property
    def error(self) -> SamovarError | None:
        """What ended it, None if it ended well or has not ended."""

    def was_read(self) -> None:
        """Called when a stream was given events."""

    def on_follower_full(self, follower: "Follower") -> None:
        """Called when a stream has reached its bound, or no longer stands at it."""

    def leave(self, follower: "Follower") -> None:
        """Called, more than once perhaps, when a stream is over."""


class Follower:
    """One stream of a turn: an async iterator of lists of batches, in order, each once.

    It ends as the turn ends: quietly, or with the turn's error; with `ReaderTooSlow` if
    it takes nothing for `slow` seconds while `bound` bytes are unread, or once what it would
    take next is gone. An async context manager; leaving it before the end loses the stream. One
    task iterates at a time. Made with the last event that its reader has seen; raises
    `EventsExpired` if the next one is no longer held.
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
        """The bytes of events not yet handed out."""
        return self._log.total - self._taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Batch]:
        while self._error is None:
            if self.position < self._log.end:
                batches = self._log.take(self.position, self._portion)
                if batches is not None:
                    return self._hand_out(batches)
                self._drop()
            elif self.turn.ended:
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
        """Make the iterator look again, and look whether it keeps up."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        if not self.full and self._log.total - self._taken >= self._bound:
            self._look()

    def _look(self) -> None:
        """Take note of whether it stands at its bound; the time there counts anew."""
        full = self.unread >= self._bound
        self._stop_counting()
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
        """End this stream alone, as one that is not read."""
        seen = {"read": self.sequence, "unread": self.unread}
        facts = self.turn.facts
        incident(facts.recorder, "reader.too_slow", **facts.ids, **seen)
        metadata = {"turnId": self.turn.turn_id, "lastSequence": str(self.sequence)}
        self._error = ReaderTooSlow("the stream was not read fast enough", metadata=metadata)
        self.leave()

    def leave(self) -> None:
        """Stop following. Idempotent."""
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
