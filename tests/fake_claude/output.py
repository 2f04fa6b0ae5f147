"""Write stdout: whole lines in order, or what a fault makes of them."""

from __future__ import annotations

import json
import os
import sys


class Output:
    """Stdout. Blocks while its reader does not read; ends the process if it has none."""

    def __init__(self) -> None:
        self.mute = False
        self._newline = b"\n"

    def write(self, line: object) -> None:
        self.raw(encoded(line) + self._newline)
        self._newline = b"\n"

    def without_newline(self) -> None:
        """Leave out the newline of the next line."""
        self._newline = b""

    def raw(self, data: bytes) -> None:
        if self.mute:
            return
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(1, view) :]
        except OSError as error:
            sys.stderr.write(f"stdout: {error}\n")
            sys.stderr.flush()
            os._exit(1)


def encoded(line: object) -> bytes:
    """Return UTF-8 as the CLI writes it: only lone surrogates are escaped."""
    try:
        return json.dumps(line, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(line).encode()
