"""The events of one turn that are held: numbered, in batches, the oldest dropped first.

Knows nothing of who reads them, or of what becomes of the turn.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from samovard.core.errors import EventsExpired
from samovard.core.events import Event


class Batch(NamedTuple):
    """Events that were ready together: numbered from `sequence`, at `time`, of `size` bytes.

    `end` counts the bytes of all events of the turn up to here.
    """

    sequence: int
    time: float
    events: Sequence[Event]
    size: int
    end: int = 0

    @property
    def last(self) -> int:
        """The number of its last event."""
        return self.sequence + len(self.events) - 1


class EventLog:
    """The events of one turn that are held. A reader has a position: it counts batches.

    `last` is the number of the newest event, 0 before the first; `end` the position behind the
    newest batch; `bytes` what is held; `total` the bytes of all events, held or not.
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
        """Add events of `size` bytes, at least one event."""
        self.total += size
        self.bytes += size
        self.end += 1
        self._batches.append(Batch(self.last + 1, time, events, size, self.total))
        self.last += len(events)

    def find(self, after: int) -> int:
        """Return the position of the event past a number, or of the one that comes next.

        Raise `EventsExpired` if it is no longer held.
        """
        if after < self._missing:
            raise self._expired()
        return self._first + bisect_right(self._batches, after, key=lambda batch: batch.last)

    def take(self, position: int, most: int) -> list[Batch] | None:
        """Return what is held from a position on: about `most` bytes, but at least a batch.

        None if what is there is no longer held.
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
        """Return the bytes of all events before a position that is held, or is the end."""
        index = position - self._first
        if index < len(self._batches):
            return self._batches[index].end - self._batches[index].size
        return self.total

    def drop_oldest(self, position: int) -> bool:
        """Drop the oldest batch and return True if it is before a position."""
        if self._first >= min(position, self.end):
            return False
        self.bytes -= self._batches.popleft().size
        self._first += 1
        return True

    def clear(self) -> None:
        """Drop everything."""
        self._first, self.bytes = self.end, 0
        self._batches.clear()

    def _expired(self) -> EventsExpired:
        metadata = {"lastSequence": str(self.last)}
        if self._batches:
            metadata["oldestSequence"] = str(self._batches[0].sequence)
        return EventsExpired("the next event is no longer held", metadata=metadata)


def cut(batch: Batch, after: int) -> Batch:
    """Return the part of a batch past a number."""
    if batch.sequence > after:
        return batch
    return batch._replace(sequence=after + 1, events=batch.events[after + 1 - batch.sequence :])
