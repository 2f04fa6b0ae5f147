"""All events that are held together, of turns that run and of turns that ended a while ago.

Knows how much each turn holds and which may go. Knows nothing of what events are.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

#: What a turn takes beside its events. Seen with tracemalloc: 5.7 KiB for a held turn of
#: three events, 6.9 KiB with a session of its own.
TURN_BYTES = 8 << 10


class Holder(Protocol):
    """A turn that holds events."""

    @property
    def held_bytes(self) -> int:
        """The bytes of events that are held."""

    @property
    def read_bytes(self) -> int:
        """Those of them that its `Send` stream has read, or all without one."""

    @property
    def being_read(self) -> bool:
        """True if there is something that its `Send` stream has not read."""

    def drop_oldest_read(self) -> bool:
        """Drop the oldest events and return True, unless they are unread."""

    def drop_all(self) -> None:
        """Drop every event: streams that have not read them are too slow."""


class EventRetention:
    """Holds events of ended turns for `seconds`, and `most` bytes of all turns together.

    When there are more, ended turns go first, the one that ended first before the others;
    then what was read of running ones, of the one that has most of it. `crowded` is true while
    there are more and nothing can go: a turn that was read then says so.
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
        """Take note of the bytes of events that a turn holds, and make room if all is too much."""
        before = self._sizes.get(turn)
        if before is None:
            return  # of a session that was closed: only its streams have it
        size = TURN_BYTES + held
        self.bytes += size - before
        self._sizes[turn] = size
        if self.bytes > self._most or self.crowded:
            self._make_room()

    def keep(self, turn: Holder, forget: Callable[[], None]) -> None:
        """Hold a turn that ended for a while; `forget` is called when it is let go."""
        timer = asyncio.get_running_loop().call_later(self._seconds, self._let_go, turn)
        self._ended[turn] = timer, forget
        self.resize(turn, turn.held_bytes)

    def drop(self, turn: Holder) -> None:
        """Hold a turn no longer; its streams may read on. Idempotent."""
        self.bytes -= self._sizes.pop(turn, 0)
        timer, _ = self._ended.pop(turn, (None, None))
        if timer is not None:
            timer.cancel()

    def release(self) -> None:
        """Drop everything, so that no timer is left."""
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
        """Let something go and return True, unless nothing may."""
        for turn in self._ended:
            if not turn.being_read:
                self._let_go(turn)
                return True
            if self._drop_oldest_read(turn):
                return True
        # Not by age: the turn that holds most has the longest history left after it.
        fullest = max(self._sizes, key=lambda turn: turn.read_bytes)
        return self._drop_oldest_read(fullest)

    def _drop_oldest_read(self, turn: Holder) -> bool:
        if not turn.drop_oldest_read():
            return False
        size = TURN_BYTES + turn.held_bytes
        self.bytes += size - self._sizes[turn]
        self._sizes[turn] = size
        return True
