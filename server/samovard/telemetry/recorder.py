"""The interface to which telemetry is reported; the SDK is behind it.

Independent of where telemetry goes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from samovard.telemetry.facts import CallFacts, StartFacts, TurnFacts


@dataclass(frozen=True, slots=True)
class Gauges:
    """The values of all gauges at one moment, to be read from any thread.

    Turns are counted by profile; processes, their memory in bytes, and sessions by state.
    `max_wait` is the age of the oldest waiting turn in seconds. `removing` counts directories of
    removed sessions that are not erased yet. `certificate` is the number of seconds until the
    served certificate expires, None without TLS of our own. `audit_down` is True while the audit
    log cannot be written.
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


class ModelRequest(Protocol):
    """One request of an agent to the model's API.

    `result` is the class of the API's status, such as `2xx`, or a word for why there was none.
    `first_byte` is the seconds until the answer began, None without one. `tokens` are counted by
    kind.
    """

    @property
    def tenant(self) -> str:
        """The tenant."""

    @property
    def profile(self) -> str:
        """The profile."""

    @property
    def result(self) -> str:
        """How it went."""

    @property
    def first_byte(self) -> float | None:
        """The time to the answer's beginning."""

    @property
    def tokens(self) -> Mapping[str, int]:
        """The tokens that were used."""


class Recorder(Protocol):
    """A sink for calls, turns and processes. Methods return at once and never raise."""

    @property
    def detailed(self) -> bool:
        """True if a turn's tools are to be recorded."""

    @property
    def callers(self) -> bool:
        """True if spans identify the caller."""

    def listens_on(self, address: str) -> None:
        """Called with the address on which callers reach the service."""

    def isolates(self, level: str, network: str) -> None:
        """Called with the level of the walls around agents, and what they hold of the network."""

    @property
    def exports_gauges(self) -> bool:
        """True if gauges are exported; otherwise they need not be read."""

    def gauges_read(self, gauges: Gauges) -> None:
        """Called every 2 s with the current values, if gauges are exported."""

    def call_began(self, call: CallFacts, carrier: Mapping[str, str]) -> None:
        """Called when a call begins; set its place in a trace.

        `carrier` holds the caller's `traceparent` and `tracestate`, if any.
        """

    def call_ended(self, call: CallFacts) -> None:
        """Called when a call has ended and its mark `deliver` is reached."""

    def turn_ended(self, turn: TurnFacts) -> None:
        """Called once per turn, when both the turn and its call have ended."""

    def start_ended(self, start: StartFacts) -> None:
        """Called when a process is ready or its start has failed."""

    def process_moved(self, source: str, target: str, cause: str) -> None:
        """Called when a process changes its state from `source` to `target`."""

    def frames_dropped(self, reason: str, count: int) -> None:
        """Called when lines of an agent are dropped as `unsolicited`, `foreign` or `noise`."""

    def model_requested(self, request: ModelRequest) -> None:
        """Called after each request of an agent to the model's API; on one thread of its own."""

    def incident(self, event: str) -> None:
        """Called with the word of an incident whose line is already logged."""

    def store_answered(self, operation: str, seconds: float, result: str) -> None:
        """Called after each store call with its name, duration in seconds, and result.

        The result is `ok`, or a word for why the call failed.
        """


class NullRecorder:
    """A recorder that ignores everything, used where nothing is exported."""

    detailed = False
    callers = False
    exports_gauges = False

    def listens_on(self, address: str) -> None:
        """Ignore the address."""

    def isolates(self, level: str, network: str) -> None:
        """Ignore both."""

    def gauges_read(self, gauges: Gauges) -> None:
        """Ignore the values."""

    def call_began(self, call: CallFacts, carrier: Mapping[str, str]) -> None:
        """Leave the call without a place in a trace."""

    def call_ended(self, call: CallFacts) -> None:
        """Ignore the call."""

    def turn_ended(self, turn: TurnFacts) -> None:
        """Ignore the turn."""

    def start_ended(self, start: StartFacts) -> None:
        """Ignore the start."""

    def process_moved(self, source: str, target: str, cause: str) -> None:
        """Ignore the change of state."""

    def frames_dropped(self, reason: str, count: int) -> None:
        """Ignore the lines."""

    def model_requested(self, request: ModelRequest) -> None:
        """Ignore the request."""

    def incident(self, event: str) -> None:
        """Ignore the incident."""

    def store_answered(self, operation: str, seconds: float, result: str) -> None:
        """Ignore the store call."""


NULL_RECORDER = NullRecorder()
