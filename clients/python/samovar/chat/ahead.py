"""Read ahead in a turn's events while a person thinks about a question.

Knows the client's turns, and nothing of what is shown.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self

from samovar.client import Turn
from samovar.errors import SamovarError
from samovar.events import Event, PermissionResolved


class Ahead:
    """The events of a turn, in order: an iterator, for one thread."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn
        self._ready: deque[Event] = deque()
        self._error: SamovarError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        if self._ready:
            return self._ready.popleft()
        if self._error is not None:
            raise self._error
        return next(self._turn)

    @contextmanager
    def resolving(self, permission_id: str) -> Iterator[Callable[[], bool]]:
        """Read ahead in a thread until a permission request is resolved.

        Yield a function that returns True once it is. Leaving the block waits for that.
        """
        over = threading.Event()
        thread = threading.Thread(target=self._read, args=(permission_id, over), daemon=True)
        thread.start()
        try:
            yield over.is_set
        finally:
            thread.join()

    def _read(self, permission_id: str, over: threading.Event) -> None:
        try:
            if not any(_resolves(event, permission_id) for event in self._ready):
                for event in self._turn:
                    self._ready.append(event)
                    if _resolves(event, permission_id):
                        break
        except SamovarError as error:
            self._error = error
        finally:
            over.set()


def _resolves(event: Event, permission_id: str) -> bool:
    return isinstance(event, PermissionResolved) and event.permission_id == permission_id
