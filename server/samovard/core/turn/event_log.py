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
    """The events of one turn that are held. A reader has a position: it counts batches."""

    def __init__(self) -> None:
        self._batches: deque[Batch] = deque()
        self._first = 0  # the position of the oldest batch
        self.last = 0  # the number of the newest event, 0 before the first
        self.total = 0  # bytes of all events, held or not

    def __repr__(self) -> str:
        return f"<EventLog {self.last - self._missing} of {self.last} events, {self.bytes} bytes>"

    @property
    def bytes(self) -> int:
        """How many bytes are held."""
        return self.total - self._batches[0].end + self._batches[0].size if self._batches else 0

    @property
    def end(self) -> int:
        """The position behind the newest batch."""
        return self._first + len(self._batches)

    @property
    def _missing(self) -> int:
        return self._batches[0].sequence - 1 if self._batches else self.last

    def append(self, events: Sequence[Event], size: int, time: float) -> None:
        """Adds events of so many bytes, at least one."""
        self.total += size
        self._batches.append(Batch(self.last + 1, time, events, size, self.total))
        self.last += len(events)

    def find(self, after: int) -> int:
        """Gives the position of the event past a number, or of the one that comes next.

        Raises `EventsExpired` if it is no longer held.
        """
        if after < self._missing:
            raise self._expired()
        return self._first + bisect_right(self._batches, after, key=lambda batch: batch.last)

    def take(self, position: int, most: int) -> list[Batch] | None:
        """Gives what is held from a position on: about so many bytes, but at least a batch.

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
        """Gives the bytes of all events before a position that is held, or is the end."""
        index = position - self._first
        if index < len(self._batches):
            return self._batches[index].end - self._batches[index].size
        return self.total

    def drop_oldest(self, position: int) -> bool:
        """Drops the oldest batch if it is before a position; tells whether it did."""
        if self._first >= min(position, self.end):
            return False
        self._batches.popleft()
        self._first += 1
        return True

    def clear(self) -> None:
        """Drops everything."""
        self._first = self.end
        self._batches.clear()

    def _expired(self) -> EventsExpired:
        metadata = {"lastSequence": str(self.last)}
        if self._batches:
            metadata["oldestSequence"] = str(self._batches[0].sequence)
        return EventsExpired("the next event is no longer held", metadata=metadata)


def cut(batch: Batch, after: int) -> Batch:
    """Gives the part of a batch past a number."""
    if batch.sequence > after:
        return batch
    return batch._replace(sequence=after + 1, events=batch.events[after + 1 - batch.sequence :])
