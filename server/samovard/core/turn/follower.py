"""One stream of a turn: what it has been given, and whether it is read fast enough.

Knows nothing of who runs the turn, or of who reads the stream.
"""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Self

from samovard.core.errors import ReaderTooSlow, SamovarError
from samovard.core.turn.event_log import Batch, cut
from samovard.telemetry.incidents import incident

if TYPE_CHECKING:
    from samovard.core.turn.turn import Turn

#: About how much is handed out at once: what a reader has not asked for stays countable.
PORTION = 1 << 20
#: And at first, so that whoever joins a turn late has its first event soon.
FIRST_PORTION = 64 << 10


class Follower:
    """One stream of a turn: an async iterator of lists of batches, in order, each once.

    It ends as the turn ends: quietly, or with the turn's error; with `ReaderTooSlow` if
    it takes nothing for too long while it stands at its bound, or once what it would take
    next is gone. An async context manager; leaving it before the end loses the stream. One
    task iterates at a time. Made with the last event that its reader has seen; raises
    `EventsExpired` if the next one is no longer held.
    """

    def __init__(self, turn: "Turn", after: int) -> None:
        self.turn = turn
        self.sequence = after  # the last event handed out
        self.position = turn.event_log.find(after)
        self._taken = turn.event_log.before(self.position)
        self._portion = FIRST_PORTION
        self._error: SamovarError | None = None
        self._waiting: asyncio.Future[None] | None = None
        self._slow: asyncio.TimerHandle | None = None

    @property
    def unread(self) -> int:
        """The bytes of events not yet handed out."""
        return self.turn.event_log.total - self._taken

    @property
    def full(self) -> bool:
        """Tells whether it stands at its bound."""
        return self.unread >= self.turn.bounds.unread

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Batch]:
        while self._error is None:
            batches = self.turn.event_log.take(self.position, self._portion)
            if batches is None:
                self._drop()
            elif batches:
                return self._hand_out(batches)
            elif self.turn.ended:
                self._error = self.turn.error
                break
            else:
                await self._wait()
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    def _hand_out(self, batches: list[Batch]) -> list[Batch]:
        batches[0] = cut(batches[0], self.sequence)
        self.position += len(batches)
        self.sequence = batches[-1].last
        self._taken = batches[-1].end
        self._portion = PORTION
        self._stop_counting()
        self._count()
        self.turn.was_read()
        return batches

    async def _wait(self) -> None:
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def wake(self) -> None:
        """Makes the iterator look again, and looks whether it keeps up."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
        if self._slow is None:
            self._count()

    def _count(self) -> None:
        if self.full:
            loop = asyncio.get_running_loop()
            self._slow = loop.call_later(self.turn.bounds.slow, self._drop)

    def _stop_counting(self) -> None:
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def _drop(self) -> None:
        """Ends this stream alone, as one that is not read."""
        seen = {"read": self.sequence, "unread": self.unread}
        facts = self.turn.facts
        incident(facts.recorder, "reader.too_slow", **facts.ids, **seen)
        metadata = {"turnId": self.turn.turn_id, "lastSequence": str(self.sequence)}
        self._error = ReaderTooSlow("the stream was not read fast enough", metadata=metadata)
        self.leave()

    def leave(self) -> None:
        """Stops following. Idempotent."""
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
