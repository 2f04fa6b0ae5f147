"""All events that are held together, of turns that run and of turns that ended a while ago.

Knows how much each turn holds and which may go. Knows nothing of what events are.
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from samovard.core.turn.turn import Turn

#: What a turn takes beside its events. Seen with tracemalloc: 5.7 KiB for a held turn of
#: three events, 6.9 KiB with a session of its own.
TURN_BYTES = 8 << 10


class EventRetention:
    """Holds events of ended turns for `seconds`, and `most` bytes of all turns together.

    When there are more, ended turns go first, the one that ended first before the others;
    then what was read of running ones, of the one that has most of it.
    """

    def __init__(self, seconds: float = 5 * 60.0, most: int = 256 << 20) -> None:
        self._seconds = seconds
        self._most = most
        self._sizes: dict[Turn, int] = {}
        self._ended: dict[Turn, tuple[asyncio.TimerHandle, Callable[[], None]]] = {}
        self.bytes = 0

    def __repr__(self) -> str:
        turns = f"{len(self._sizes)} turns, {len(self._ended)} ended"
        return f"<EventRetention {self.bytes} bytes of {turns}>"

    def add(self, turn: "Turn") -> None:
        """Counts a turn from now on."""
        self._sizes[turn] = 0
        self.count(turn)

    def count(self, turn: "Turn") -> None:
        """Takes note of what a turn holds by now, and makes room if all is too much."""
        if turn not in self._sizes:
            return  # of a session that was closed: only its streams have it
        self._weigh(turn)
        while self.bytes > self._most and self._make_room():
            pass

    def _weigh(self, turn: "Turn") -> None:
        size = TURN_BYTES + turn.held_bytes
        self.bytes += size - self._sizes[turn]
        self._sizes[turn] = size

    def keep(self, turn: "Turn", forget: Callable[[], None]) -> None:
        """Holds a turn that ended for a while; `forget` is called when it is let go."""
        timer = asyncio.get_running_loop().call_later(self._seconds, self._let_go, turn)
        self._ended[turn] = timer, forget
        self.count(turn)

    def drop(self, turn: "Turn") -> None:
        """Holds a turn no longer; its streams may read on. Idempotent."""
        self.bytes -= self._sizes.pop(turn, 0)
        timer, _ = self._ended.pop(turn, (None, None))
        if timer is not None:
            timer.cancel()

    def release(self) -> None:
        """Drops everything, so that no timer is left."""
        for turn in list(self._sizes):
            self.drop(turn)

    def _let_go(self, turn: "Turn") -> None:
        _, forget = self._ended[turn]
        self.drop(turn)
        turn.drop_all()
        forget()

    def _make_room(self) -> bool:
        """Lets something go; tells whether there was anything."""
        for turn in self._ended:
            if not turn.being_read:
                self._let_go(turn)
                return True
            if turn.drop_oldest_read():
                self._weigh(turn)
                return True
        # Not by age: whoever holds most has the longest history left after it.
        fullest = max(self._sizes, key=lambda turn: turn.read_bytes)
        if not fullest.drop_oldest_read():
            return False
        self._weigh(fullest)
        return True
