"""What telemetry is reported to: the seam behind which the SDK stands.

Knows nothing of where it goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from samovard.telemetry.facts import CallFacts, StartFacts, TurnFacts


@dataclass(frozen=True, slots=True)
class Gauges:
    """The values of all gauges at one moment, to be read from any thread.

    Turns are counted by profile, processes, their memory in bytes and sessions by state.
    `max_wait` is the age in seconds of the oldest waiter. `removing` counts what is left of
    removed sessions: directories that are not erased yet. `certificate` is in how many seconds
    the served one expires, None without TLS of our own. `audit_down`: the audit log cannot be
    written.
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


class Recorder(Protocol):
    """Hears of calls, turns and processes. Every method returns at once and never raises."""

    @property
    def detailed(self) -> bool:
        """Tells whether a turn's tools are worth following."""

    @property
    def callers(self) -> bool:
        """True if spans say which caller it was."""

    def listens_on(self, address: str) -> None:
        """Hears where callers reach the service."""

    @property
    def exports_gauges(self) -> bool:
        """True if gauges are exported. Without, they need not be read."""

    def gauges_read(self, gauges: Gauges) -> None:
        """Called every 2 s with the values of this moment, if gauges are exported."""

    def call_began(self, call: CallFacts, carrier: Mapping[str, str]) -> None:
        """Hears of a new call and gives it its place in a trace.

        `carrier` holds the caller's `traceparent` and `tracestate`, if any.
        """

    def call_ended(self, call: CallFacts) -> None:
        """Hears that a call has ended; its `deliver` is reached."""

    def turn_ended(self, turn: TurnFacts) -> None:
        """Hears, once, that a turn and its call have both ended."""

    def start_ended(self, start: StartFacts) -> None:
        """Hears that a process is ready, or why it is not."""

    def process_moved(self, source: str, target: str, cause: str) -> None:
        """Hears that a process changed its state."""

    def frames_dropped(self, reason: str, count: int) -> None:
        """Hears of lines of an agent that reached nobody: `unsolicited`, `foreign`, `noise`."""

    def incident(self, event: str) -> None:
        """Hears of an incident; its line is in the log already."""

    def store_answered(self, operation: str, seconds: float, result: str) -> None:
        """Hears how long the store took: `ok`, or why it failed in a word."""


class NullRecorder:
    """Hears nothing: what runs where nothing is exported."""

    detailed = False
    callers = False
    exports_gauges = False

    def listens_on(self, address: str) -> None:
        """Does nothing."""

    def gauges_read(self, gauges: Gauges) -> None:
        """Does nothing."""

    def call_began(self, call: CallFacts, carrier: Mapping[str, str]) -> None:
        """Gives the call no place."""

    def call_ended(self, call: CallFacts) -> None:
        """Does nothing."""

    def turn_ended(self, turn: TurnFacts) -> None:
        """Does nothing."""

    def start_ended(self, start: StartFacts) -> None:
        """Does nothing."""

    def process_moved(self, source: str, target: str, cause: str) -> None:
        """Does nothing."""

    def frames_dropped(self, reason: str, count: int) -> None:
        """Does nothing."""

    def incident(self, event: str) -> None:
        """Does nothing."""

    def store_answered(self, operation: str, seconds: float, result: str) -> None:
        """Does nothing."""


NULL_RECORDER = NullRecorder()
