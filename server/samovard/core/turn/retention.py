"""The retention of events: a common limit for running turns and recently ended turns.

Retention keeps the number of bytes that each turn holds. It does not depend on events.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

#: The memory of a turn beside its events, in bytes. Measured with tracemalloc: 5.7 KiB for a
#: held turn of three events, 6.9 KiB with a session of its own.
TURN_BYTES = 8 << 10


class Holder(Protocol):
    """A turn that holds events."""

    @property
    def held_bytes(self) -> int:
        """The bytes of the events that the turn holds."""

    @property
    def read_bytes(self) -> int:
        """How many of these bytes its `Send` stream has read; all without a `Send` stream."""

    @property
    def being_read(self) -> bool:
        """True if its `Send` stream has unread events."""

    def drop_oldest_read(self) -> bool:
        """Drop the oldest events if they are read. Return True if any were dropped."""

    def drop_all(self) -> None:
        """Drop every event. Streams that have not read them end with `ReaderTooSlow`."""


class EventRetention:
    """The events of all turns: at most `most` bytes together, and ended turns for `seconds`.

    Over the limit, ended turns are dropped first, in the order in which they ended. Then the
    read events of running turns are dropped, first of the turn that has most of them. `crowded`
    is True while the limit is exceeded and nothing can be dropped: a turn must then call
    `resize` whenever its events were read.
    """

    def __init__(self, seconds: float = 5 * 60.0, most: int = 256 << 20) -> None:
        self._seconds = seconds
        self._most = most
        self._sizes: dict[Holder, int] = {}
        self._ended: dict[Holder, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self.bytes = 0
        self.crowded = False

    def __repr__(self) -> str:
        turns = f"{len(self._sizes)} turns, {len(self._ended)} ended"
        return f"<EventRetention {self.bytes} bytes of {turns}>"

    def add(self, turn: Holder) -> None:
        """Count a turn from now on."""
        self._sizes[turn] = 0
        self.resize(turn, turn.held_bytes)

    def resize(self, turn: Holder, held: int) -> None:
        """Record how many bytes of events a turn holds, and make room over the limit."""
        before = self._sizes.get(turn)
        if before is None:
            return  # its session was closed, so that only its streams hold its events
        size = TURN_BYTES + held
        self.bytes += size - before
        self._sizes[turn] = size
        # While crowded, any change may be the one that allows something to be dropped.
        if self.bytes > self._most or self.crowded:
            self._make_room()

    def keep(self, turn: Holder, forget: Callable[[], None]) -> None:
        """Hold an ended turn for a while, and call `forget` when it is dropped."""
        timer = asyncio.get_running_loop().call_later(self._seconds, self._let_go, turn)
        self._ended[turn] = timer, forget
        self.resize(turn, turn.held_bytes)

    def drop(self, turn: Holder) -> None:
        """Stop counting a turn. Its streams may read on. Idempotent."""
        self.bytes -= self._sizes.pop(turn, 0)
        timer, _ = self._ended.pop(turn, (None, None))
        if timer is not None:
            timer.cancel()

    def release(self) -> None:
        """Drop all turns and cancel their timers."""
        for turn in list(self._sizes):
            self.drop(turn)

    def _let_go(self, turn: Holder) -> None:
        _, forget = self._ended[turn]
        self.drop(turn)
        turn.drop_all()
        forget()

    def _make_room(self) -> None:
        while self.bytes > self._most and self._let_something_go():
            pass
        self.crowded = self.bytes > self._most

    def _let_something_go(self) -> bool:
        """Drop the next turn or batch. Return False if nothing may be dropped."""
        # Dicts keep their order, so the turn that ended first comes first. A turn that is still
        # being read loses only its read events.
        for turn in self._ended:
            if not turn.being_read:
                self._let_go(turn)
                return True
            if self._drop_oldest_read(turn):
                return True
        # Not by age: the turn that holds most keeps the longest history after a drop.
        fullest = max(self._sizes, key=lambda turn: turn.read_bytes)
        return self._drop_oldest_read(fullest)

    def _drop_oldest_read(self, turn: Holder) -> bool:
        if not turn.drop_oldest_read():
            return False
        size = TURN_BYTES + turn.held_bytes
        self.bytes += size - self._sizes[turn]
        self._sizes[turn] = size
        return True
