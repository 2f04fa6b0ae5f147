"""How much there is of what comes and goes, at one moment. Knows nothing of who counts it."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Levels:
    """Turns by profile, the age in seconds of the oldest waiter, and the rest by state.

    `removing` counts what is left of removed sessions: directories that are not erased yet.
    `certificate` is in how many seconds the served one expires, None without TLS of our own.
    `audit_down`: the audit log cannot be written.
    """

    running: Mapping[str, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    max_wait: float = 0.0
    processes: Mapping[str, int] = field(default_factory=dict)
    memory: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    removing: int = 0
    certificate: float | None = None
    audit_down: bool = False
