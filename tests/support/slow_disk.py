"""A disk that blocks or fails where a test prescribes it: `os` is the seam, nothing of ours is."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


class Disk:
    """A disk that blocks or fails calls of `os` on some entries. All other calls go through."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._lock = threading.Lock()
        self.reached = 0  # how many calls were made on such an entry

    @contextmanager
    def blocks(self, call: str, *names: str) -> Iterator[threading.Event]:
        """Block a call on some entries until the event that this yields is set, or the block is
        left.
        """
        free = threading.Event()
        with self._hooked(call, names, free.wait):
            try:
                yield free
            finally:
                free.set()

    @contextmanager
    def fails(self, call: str, *names: str) -> Iterator[None]:
        """Make a call on some entries fail."""

        def fail() -> None:
            raise OSError(5, "Input/output error")

        with self._hooked(call, names, fail):
            yield

    @contextmanager
    def _hooked(self, call: str, names: tuple[str, ...], do: Any) -> Iterator[None]:
        real = getattr(os, call)

        def hooked(name: str, *arguments: Any, **options: Any) -> Any:
            if name in names:
                with self._lock:
                    self.reached += 1
                do()
            return real(name, *arguments, **options)

        with self._monkeypatch.context() as patch:
            patch.setattr(os, call, hooked)
            yield


def erasers() -> list[threading.Thread]:
    """Return the threads that erase."""
    return [thread for thread in threading.enumerate() if thread.name == "samovar-erase"]
