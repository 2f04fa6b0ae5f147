"""Listeners of the pool: one for events of sessions, one for the outcomes of starts."""

from typing import Protocol

from samovard.core.errors import SamovarError
from samovard.core.records import SessionKey


class PoolListener(Protocol):
    """The receiver of events that concern sessions. Its methods return at once and never raise."""

    def on_foreign(self, key: SessionKey) -> None:
        """Called when a process sent a frame of another session: its own must be blocked."""

    def on_reaped(self, key: SessionKey) -> None:
        """Called when a session's process and all its descendants are gone."""


class StartListener(Protocol):
    """The receiver of the outcomes of starts."""

    def on_start(self, key: SessionKey, error: SamovarError | None) -> None:
        """Called with the outcome of a start for a session's turn. Must return at once."""
