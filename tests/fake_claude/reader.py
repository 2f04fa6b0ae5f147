"""Read stdin in whole lines, and wait: for a line, for a signal, for a time.

Knows nothing of the content of lines.
"""

from __future__ import annotations

import os
import select

READ_BYTES = 1 << 16


class Reader:
    """Stdin. `eof` is True once it ended; `stopped` if it must not be read any more."""

    def __init__(self) -> None:
        self.eof = False
        self.stopped = False
        self._pieces: list[bytes] = []  # of a line that is not complete
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)

    def wake(self, *_: object) -> None:
        """End the wait at once; for signal handlers."""
        os.write(self._waker, b"w")

    def wait(self, seconds: float | None) -> list[bytes]:
        """Wait for input, for `seconds` or for ever, and return the lines that are complete now."""
        fds = [self._woken] if self.eof or self.stopped else [self._woken, 0]
        ready, _, _ = select.select(fds, [], [], seconds)
        if self._woken in ready:
            os.read(self._woken, READ_BYTES)
        return self._read() if 0 in ready else []

    def _read(self) -> list[bytes]:
        data = os.read(0, READ_BYTES)
        self.eof = not data
        first, *others = data.split(b"\n")
        self._pieces.append(first)
        if not others:
            return []
        whole = b"".join(self._pieces)
        self._pieces = [others.pop()]
        return [whole, *others]
