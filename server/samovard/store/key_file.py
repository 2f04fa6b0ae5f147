"""API keys as a file: given at each start to a server without a disk of its own.

Knows the lines of the file. Contains no secret: only the MAC of a key, which is useless without the
pepper.
"""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from samovard.store.keys import KeyRecord


class NotKeys(Exception):
    """Raised if a file is not one of keys; the message is one sentence with the place of the
    error.
    """


def text(keys: Iterable[KeyRecord]) -> str:
    """Return keys as lines of JSON."""
    lines = (msgspec.json.encode(key, order="deterministic").decode() for key in keys)
    return "".join(f"{line}\n" for line in lines)


def read(path: Path) -> list[KeyRecord]:
    """Return the keys of a file. Raise `NotKeys`."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise NotKeys(f"{path}: {error.strerror}") from error
    return [_key(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _key(path: Path, number: int, line: bytes) -> KeyRecord:
    try:
        return msgspec.json.decode(line, type=KeyRecord)
    except msgspec.DecodeError as error:
        # The text of the error may show what is in the file; the line number does not.
        raise NotKeys(f"{path}: line {number} is not a key of `samovard keys export`") from error
