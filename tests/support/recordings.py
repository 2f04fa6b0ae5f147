"""Recorded traffic of the real CLI: `tests/wire/<name>.jsonl`.

The first row names the CLI's version and, if `make record` made it, how the CLI was started. The
others were made by hand: they show what the service never does.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

WIRE = Path(__file__).parents[1] / "wire"
NAMES = sorted(path.stem for path in WIRE.glob("*.jsonl"))


@dataclass(frozen=True)
class Recording:
    """The lines that were written to the CLI and those that it wrote, in order.

    `arguments` are those it was started with, none for a recording made by hand.
    """

    name: str
    version: str
    arguments: list[str]
    lines: list[tuple[str, dict[str, Any]]]

    @property
    def session(self) -> str:
        """The CLI's own session."""
        said = (line.get("session_id") for way, line in self.lines if way == "out")
        return next((session for session in said if session), "")

    @property
    def output(self) -> bytes:
        """Everything that the CLI wrote."""
        return b"".join(encoded(line) for way, line in self.lines if way == "out")


def encoded(line: dict[str, Any]) -> bytes:
    """Return a line as the CLI writes it."""
    return msgspec.json.encode(line) + b"\n"


def recording(name: str) -> Recording:
    """Read a recording."""
    text = (WIRE / f"{name}.jsonl").read_text()
    header, *rows = [json.loads(row) for row in text.splitlines()]
    lines = [(row["dir"], row["line"]) for row in rows]
    return Recording(name, header["claude"], header.get("arguments", []), lines)


def fits(ours: object, theirs: object) -> bool:
    """True if a value has the shape of the CLI's: its type, and no keys that the CLI's lacks."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        # The input of a tool is the tool's own.
        return all(
            key in theirs and (key == "input" or fits(ours[key], theirs[key])) for key in ours
        )
    if isinstance(ours, list) and isinstance(theirs, list):
        return all(fits(a, b) for a, b in zip(ours, theirs, strict=False))
    return type(ours) is type(theirs) or {type(ours), type(theirs)} == {int, float}
