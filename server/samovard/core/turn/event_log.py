"""The event log of one turn: numbered events in batches, of which the oldest are dropped first.

It does not depend on the streams that read it, or on the state of the turn.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from samovard.core.errors import EventsExpired
from samovard.core.events import Event


class Batch(NamedTuple):
    """Events that were ready together, numbered from `sequence`, of `size` bytes.

    `time` is in seconds since the epoch. `end` is the bytes of all events of the turn up to the
    end of this batch.
    """

    sequence: int
    time: float
    events: Sequence[Event]
    size: int
    end: int = 0

    @property
    def last(self) -> int:
        """The number of the batch's last event."""
        return self.sequence + len(self.events) - 1


class EventLog:
    """The event log of one turn. A reader has a position in it, which counts batches.

    `last` is the number of the newest event, 0 before the first. `end` is the position after the
    newest batch. `bytes` is the size of the events held; `total` includes dropped events.
    """

    __slots__ = ("_batches", "_first", "bytes", "end", "last", "total")

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._first = 0  # the position of the oldest batch
        self.last = self.end = self.total = self.bytes = 0

    def __repr__(self) -> str:
        return f"<EventLog {self.last - self._missing} of {self.last} events, {self.bytes} bytes>"

    @property
    def _missing(self) -> int:
        return self._batches[0].sequence - 1 if self._batches else self.last

    def append(self, events: Sequence[Event], size: int, time: float) -> None:
        """Append a batch of at least one event, of `size` bytes in all."""
        # Running totals make the unread bytes of a stream one subtraction, without a loop.
        self.total += size
        self.bytes += size
        self.end += 1
        self._batches.append(Batch(self.last + 1, time, events, size, self.total))
        self.last += len(events)

    def find(self, after: int) -> int:
        """Return the position of the event after a number, or the end if there is none yet.

        Raise `EventsExpired` if the event was dropped.
        """
        if after < self._missing:
            raise self._expired()
        return self._first + bisect_right(self._batches, after, key=lambda batch: batch.last)

    def take(self, position: int, most: int) -> list[Batch] | None:
        """Return batches from a position on: about `most` bytes, but at least one batch.

        Return None if the batch at that position was dropped, and an empty list at the end.
        """
        index = position - self._first
        if index < 0:
            return None
        taken: list[Batch] = []
        size = 0
        while index < len(self._batches) and (not taken or size < most):
            taken.append(self._batches[index])
            size += taken[-1].size
            index += 1
        return taken

    def before(self, position: int) -> int:
        """Return the bytes of all events before a position, which must be held or the end."""
        index = position - self._first
        if index < len(self._batches):
            return self._batches[index].end - self._batches[index].size
        return self.total

    def drop_oldest(self, position: int) -> bool:
        """Drop the oldest batch if it is before a position. Return True if it was dropped."""
        if self._first >= min(position, self.end):
            return False
        self.bytes -= self._batches.popleft().size
        self._first += 1
        return True

    def clear(self) -> None:
        """Drop all events."""
        # Positions are not reset, so that streams notice that theirs was dropped.
        self._first, self.bytes = self.end, 0
        self._batches.clear()

    def _expired(self) -> EventsExpired:
        metadata = {"lastSequence": str(self.last)}
        if self._batches:
            metadata["oldestSequence"] = str(self._batches[0].sequence)
        return EventsExpired("the next event is no longer held", metadata=metadata)


def cut(batch: Batch, after: int) -> Batch:
    """Return the part of a batch after an event number."""
    if batch.sequence > after:
        return batch
    return batch._replace(sequence=after + 1, events=batch.events[after + 1 - batch.sequence :])
