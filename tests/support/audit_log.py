"""The audit log of a service that a test runs."""

import json
from pathlib import Path
from typing import Any

Line = dict[str, Any]


class Log:
    """A log in a directory of its own, which can be taken away for a while."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log" / "audit"
        self._away = directory / "away"
        self.path.parent.mkdir(mode=0o700)

    @property
    def auth(self) -> dict[str, str]:
        """The settings of a service that writes it."""
        return {"audit_sink": str(self.path)}

    def breaks(self) -> None:
        """Make every later line fail."""
        self.path.parent.rename(self._away)

    def mends(self) -> None:
        """Make lines writable again."""
        self._away.rename(self.path.parent)

    def lines(self, event: str = "") -> list[Line]:
        """Return the lines, all or those of an event."""
        found = [json.loads(line) for line in self.path.read_bytes().splitlines()]
        return [line for line in found if event in ("", line["event"])]

    def decisions(self) -> list[tuple[str, str, str]]:
        """Return method, decision and reason of each call."""
        return [
            (line["method"].rpartition("/")[2], line["decision"], line["reason"])
            for line in self.lines("decision")
        ]
