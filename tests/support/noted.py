"""What a story's world notes of what the core tells, and its wall clock."""

import asyncio
from collections import Counter
from dataclasses import dataclass

from samovard.core.errors import SamovarError
from samovard.core.records import SessionKey
from samovard.telemetry.recorder import NullRecorder

EPOCH = 1_700_000_000.0


@dataclass
class Wall:
    """A wall clock that a story may set: `shift` is by how many seconds it was."""

    shift: float = 0.0

    def __call__(self) -> float:
        return EPOCH + asyncio.get_running_loop().time() + self.shift


class Starts:
    """A listener that notes how starts go."""

    def __init__(self) -> None:
        self.heard: list[tuple[SessionKey, SamovarError | None]] = []

    def on_start(self, key: SessionKey, error: SamovarError | None) -> None:
        self.heard.append((key, error))


class Noted(NullRecorder):
    """A recorder that counts what it is told."""

    def __init__(self) -> None:
        self.incidents: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def incident(self, event: str) -> None:
        self.incidents[event] += 1

    def frames_dropped(self, reason: str, count: int) -> None:
        self.dropped[reason] += count
