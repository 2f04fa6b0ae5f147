"""What is told of the pool: to the sessions, and to the one that says whether agents start."""

from typing import Protocol

from samovard.core.errors import SamovarError
from samovard.core.records import SessionKey


class PoolListener(Protocol):
    """Is told what befalls sessions. Every method returns at once and never raises."""

    def on_foreign(self, key: SessionKey) -> None:
        """Called when a process has spoken for another session: its own must not go on."""

    def on_reaped(self, key: SessionKey) -> None:
        """Called when nothing is left of a session's process."""


class StartListener(Protocol):
    """Is told whether starts succeed."""

    def on_start(self, key: SessionKey, error: SamovarError | None) -> None:
        """Called with the outcome of a start for a session's turn. Returns at once."""
