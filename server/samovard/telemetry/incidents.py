"""Incidents: what went wrong or had to be put right. One call logs a line and counts it.

Knows each incident's word and level. Independent of what they are about.
"""

from typing import Protocol

import structlog

#: Each word with the level of its line. From `error` on an operator has to look. Incidents that
#: the turn's own line reports as well are at `debug`.
INCIDENTS = {
    "turn.refused": "info",
    "waiter.expired": "debug",
    "waiter.withdrawn": "debug",
    "lease.unused": "debug",
    "turn.interrupted": "info",
    "turn.stalled": "warning",
    "upstream.failed": "warning",
    "reader.too_slow": "warning",
    "quiet.unproven": "warning",
    "process.outdated": "info",
    "process.exited": "warning",
    "process.abandoned": "error",
    "process.quarantined": "error",
    "tree.too_large": "warning",
    "frame.unsolicited": "warning",
    "frame.truncated": "warning",
    "frame.unparsable": "error",
    "frame.too_long": "error",
    "frame.foreign": "critical",
    "start.failed": "warning",
    "start.refused": "error",
    "breaker.opened": "error",
    "transcript.lost": "error",
    "session.started_over": "warning",
    "orphans.killed": "warning",
    "leftovers.killed": "warning",
    "removal.failed": "error",
    "session.not_expired": "warning",
    "clock.jumped": "error",
    "store.owed": "warning",
    "store.lost": "error",
    "store.failed": "error",
    "store.replaced": "error",
    "store.bad_row": "error",
    "audit.down": "error",
    "audit.up": "info",
    "audit.lost": "error",
    "disk.full": "error",
    "loop.failed": "error",
    "reload.failed": "error",
    "certificate.refused": "error",
    "drain.finished": "info",
}

_log = structlog.get_logger("samovard.incidents")


class IncidentCounter(Protocol):
    """A recorder, as far as it counts incidents."""

    def incident(self, event: str) -> None:
        """Called with the word of each incident after its line is logged."""


def incident(recorder: IncidentCounter, event: str, **fields: object) -> None:
    """Log and count an incident. Fields must not hold content."""
    getattr(_log, INCIDENTS[event])(event, **fields)
    recorder.incident(event)
