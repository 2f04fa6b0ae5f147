"""What went wrong or had to be put right: one call makes a log line and a count.

Knows the words, and who is to hear of each. Knows nothing of what they tell.
"""

from typing import Protocol

import structlog

#: Each word with the level of its line: from `error` on somebody has to look. What a turn's
#: own line tells as well is for debugging.
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
    """What counts incidents: a recorder."""

    def incident(self, event: str) -> None:
        """Called with the word of an incident whose line is in the log."""


def incident(recorder: IncidentCounter, event: str, **fields: object) -> None:
    """Tells of an incident, and counts it. No field holds content."""
    getattr(_log, INCIDENTS[event])(event, **fields)
    recorder.incident(event)
