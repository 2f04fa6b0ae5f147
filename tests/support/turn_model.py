"""A plain model of turns: what was done to each, what was seen of it, and what may then be true.

Knows nothing of how the core works. The driver of the core tells the model what it did; streams
tell it what they saw; and the model says what cannot be.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile

from support.answering_process import ALLOWED, ASKS, DENIED, PIECES

from samovard.core.errors import SamovarError
from samovard.core.events import (
    Event,
    Outcome,
    PermissionRequested,
    PermissionResolved,
    Resolution,
    TextDelta,
    TurnFinished,
    TurnStarted,
)
from samovard.core.process import Broken
from samovard.core.records import SessionKey, TurnRecord
from samovard.core.turn.turn import Disconnect

#: Things done to a turn that may end it. `stop` is an interrupt, whatever its origin.
STOP, LEFT, CLOSED, KILLED, LOOPED, BROKEN, BLOCKED = (
    "stop left closed killed looped broken blocked".split()
)
DRAINED, CRASHED, DOWN, CROWDED, WAITED, LATE, AGED = (
    "drained crashed down crowded waited late aged".split()
)
MAX_WAIT, HOLD = 60.0, 300.0  # seconds: how long turns wait, and their events are held

#: The possible reasons of a status: at least one of them must have happened.
NEEDS: dict[tuple[str, str], set[str]] = {
    ("TURN_WITHDRAWN", ""): {STOP, LEFT, CLOSED},
    ("DRAINING", ""): {DRAINED},
    ("NO_PROCESS", "saturated"): {CROWDED, WAITED, LATE},
    ("NO_PROCESS", "store-down"): {DOWN},
    ("NO_PROCESS", "process-died"): {KILLED, BROKEN},
    ("NO_PROCESS", "start-failed"): {KILLED, BROKEN, CLOSED, DRAINED},
    ("MISCONFIGURED", "session-blocked"): {BLOCKED},
    ("INTERNAL", "protocol-violated"): {Broken.FOREIGN.value, Broken.UNPARSABLE.value},
    ("TURN_LOST", "line-too-long"): {Broken.LINE_TOO_LONG.value},
    ("TURN_LOST", "stalled"): {Broken.STALLED.value},
    ("SESSION_BUSY", ""): {CROWDED},
    ("NO_PROCESS", "crash-loop"): {LOOPED},
    ("TURN_LOST", "process-died"): {KILLED, BROKEN},
    ("TURN_LOST", "unproven"): {KILLED, BROKEN},
    ("TURN_LOST", "drained"): {DRAINED},
    ("TURN_LOST", "closed"): {CLOSED},
    ("TURN_LOST", "server-restarted"): {CRASHED},
    ("EVENTS_EXPIRED", ""): {AGED, CRASHED, DRAINED},
}
#: Ends of one stream that say nothing of the turn.
OF_THE_STREAM = ("EVENTS_EXPIRED",)


@dataclass(eq=False)
class Turn:
    """One turn: its prompt, what was done to it, and all that any stream saw of it."""

    key: SessionKey
    turn_id: str
    asks: bool
    policy: Disconnect
    life: int  # of its session, which begins anew with each close
    clock: Callable[[], float]
    done: set[str] = field(default_factory=set)
    seen: dict[int, Event] = field(default_factory=dict)  # by number
    ending: TurnFinished | str = ""  # the report, or the reason and cause of its status
    answers: dict[str, Resolution] = field(default_factory=dict)  # those that were accepted
    sends: int = 0  # of its streams
    refused: bool = False  # because its session was blocked when it was sent
    answering: set[str] = field(default_factory=set)  # requests that are being answered
    since: float = 0.0

    def __post_init__(self) -> None:
        """Record the begin of the turn."""
        self.since = self.clock()

    @property
    def canary(self) -> str:
        """The identity of the turn: no word of another turn may reach it."""
        return f"{self.key.tenant}/{self.key.session}/{self.turn_id}"

    @property
    def prompt(self) -> str:
        """The prompt of the agent."""
        return self.canary + (ASKS if self.asks else "")

    @property
    def events(self) -> list[Event]:
        """The events that were seen of it, up to the first gap."""
        return [self.seen[n] for n in takewhile(self.seen.__contains__, count(1))]

    @property
    def whole(self) -> bool:
        """True if there is no gap in the events that were seen."""
        return max(self.seen, default=0) == len(self.seen)

    @property
    def began(self) -> bool:
        """True if a stream saw that its prompt was written."""
        return bool(self.seen)

    @property
    def happened(self) -> set[str]:
        """What was done to it, and what its age implies."""
        age = self.clock() - self.since
        times = {WAITED} if age >= MAX_WAIT - 1 else set()
        return self.done | times | ({AGED} if age >= HOLD - 1 else set())

    @property
    def open(self) -> list[str]:
        """The requests for permission that were asked and not resolved."""
        told = self.seen.values()
        over = {e.permission_id for e in told if isinstance(e, PermissionResolved)}
        asked = (e.permission_id for e in told if isinstance(e, PermissionRequested))
        return [permission_id for permission_id in asked if permission_id not in over]

    def suffer(self, *what: str) -> None:
        """Record what was done to it, if it has not ended."""
        if not self.ending:
            self.done.update(what)

    # Reports of streams.

    def see(self, sequence: int, event: Event) -> None:
        """Record an event of a stream: every other stream must get the same."""
        known = self.seen.get(sequence)
        assert known is None or known == event, "two streams saw different events"
        assert isinstance(event, TurnStarted) is (sequence == 1)
        assert not self.refused, "it began in a session that is blocked"
        if known is None:
            assert sequence < self.last or not isinstance(self.ending, TurnFinished)
            self.seen[sequence] = event
            self._check_words()

    @property
    def last(self) -> int:
        """The number of the last event that was seen."""
        return max(self.seen, default=0)

    def end(self, ending: TurnFinished | str) -> None:
        """Record how a stream ended: every other one must end the same."""
        assert self.ending in ("", ending), f"it ended as {self.ending} and as {ending}"
        if not self.ending:
            self.ending = ending
            if isinstance(ending, TurnFinished):
                self._check_report(ending)

    def _check_words(self) -> None:
        """Check that the events are this turn's own, in their order, each once."""
        started = self.seen.get(1)
        if isinstance(started, TurnStarted):
            assert (started.session_id, started.turn_id) == (self.key.session, self.turn_id)
        for event in self.seen.values():
            if isinstance(event, TextDelta):
                assert event.text.startswith(self.canary), f"foreign: {event.text}"
            if isinstance(event, PermissionRequested):
                assert event.input_json == self.canary
        said = "".join(event.text for event in self.events if isinstance(event, TextDelta))
        assert any(whole.startswith(said) for whole in self._wholes()), f"mixed up: {said}"
        if self.whole:
            self._check_permissions()

    def _check_permissions(self) -> None:
        asked = [e.permission_id for e in self.events if isinstance(e, PermissionRequested)]
        resolved = [e for e in self.events if isinstance(e, PermissionResolved)]
        assert len(asked) == len(set(asked)) <= (1 if self.asks else 0)
        assert [e.permission_id for e in resolved] == asked[: len(resolved)]
        for event in resolved:
            answer = self.answers.get(event.permission_id)
            if event.permission_id in self.answering:
                continue
            if answer is None:
                assert event.resolution in (Resolution.EXPIRED, Resolution.WITHDRAWN)
            else:
                assert event.resolution is answer, "another answer than was given"

    def _wholes(self) -> Iterable[str]:
        """Yield every answer that it may have given in the end."""
        first, *rest = (f"{self.canary}{{}}#{piece};" for piece in range(PIECES))
        for answer in (ALLOWED, DENIED) if self.asks else ("",):
            yield first.format("") + "".join(piece.format(answer) for piece in rest)

    def _check_report(self, report: TurnFinished) -> None:
        assert self.seen[self.last] == report
        assert not (self.whole and self.open), "a request was not resolved"
        self.check_outcome(report)
        if report.outcome is Outcome.INTERRUPTED:
            return
        assert report.outcome is Outcome.COMPLETED
        assert report.result.startswith(self.canary)
        if self.whole:
            self._check_result(report)

    def check_outcome(self, report: TurnFinished) -> None:
        """Check that a turn did not stop by itself."""
        stopped = report.outcome is Outcome.INTERRUPTED
        assert not stopped or self.done & {STOP, LEFT, CLOSED, DRAINED}, "nobody stopped it"

    def _check_result(self, report: TurnFinished) -> None:
        said = "".join(event.text for event in self.events if isinstance(event, TextDelta))
        told = report.result.removeprefix(self.canary)
        resolved = [e.resolution for e in self.events if isinstance(e, PermissionResolved)]
        if self.asks:
            assert told == (ALLOWED if resolved == [Resolution.ALLOWED] else DENIED)
        else:
            assert told == ""
        # If a turn that was to be stopped came to its end first, the rest is discarded.
        assert said in self._wholes() or self.done & {STOP, LEFT, CLOSED, DRAINED}

    def fail(self, error: SamovarError) -> None:
        """Record the status that a stream ended with."""
        reason, cause = error.reason, error.cause
        needed = NEEDS.get((reason, cause))
        assert needed is not None, f"no reason is known for {error!r}"
        happened = self.happened
        assert happened & needed, f"{error!r}, though there was only {happened or 'nothing'}"
        if reason in OF_THE_STREAM:
            return
        began = reason in ("TURN_LOST", "INTERNAL")
        assert error.prompt_written is began
        assert not (began and error.retry_after)
        assert began or not self.began, f"it began, and is said not to have: {error!r}"
        if began:
            self.end(f"{reason} {cause}")


@dataclass(eq=False)
class Stream:
    """One `Send` or `Attach` of a turn, and the events that it was given.

    `other` is a `Send` of that turn id with other content.
    """

    turn: Turn
    sends: bool
    after: int = 0
    other: bool = False
    sequence: int = 0
    last: Event | None = None
    known: int = 0  # events that a stream had seen when this one began
    begun: bool = False  # True if a stream had seen that the turn began
    muted: bool = False  # the server that it is of is gone

    def __post_init__(self) -> None:
        """Start at the requested position."""
        self.sequence = self.after
        self.known, self.begun = self.turn.last, self.turn.began
        self.turn.sends += self.sends

    @property
    def asks_the_store(self) -> bool:
        """True if the turn may be known to the store only by now."""
        return not self.sends or self.turn.sends > 1

    @property
    def repeats(self) -> bool:
        """True for a `Send` of a turn that had begun, which has been given nothing yet."""
        return self.sends and self.begun and self.last is None

    def take(self, sequence: int, events: Iterable[Event]) -> None:
        """Record the events that it was given."""
        for number, event in enumerate(events, sequence):
            assert number == self.sequence + 1, "a gap, or a repeat"
            assert not isinstance(self.last, TurnFinished)
            if not self.muted:
                self.turn.see(number, event)
            self.sequence, self.last = number, event

    def end(self, error: SamovarError | None) -> None:
        """Record how it ended."""
        if self.muted:
            return
        if error is None:
            assert not self.other
            assert isinstance(self.last, TurnFinished) or not self.sends
            if isinstance(self.last, TurnFinished):
                self.turn.end(self.last)
            else:  # there was nothing after what its reader had seen
                assert self.sequence == self.after > 0
                assert self.turn.last <= self.after
            return
        assert not isinstance(self.last, TurnFinished)
        self._fail(error)

    def _fail(self, error: SamovarError) -> None:
        reason = error.reason
        if self.other:
            assert reason == "ID_TAKEN" or DOWN in self.turn.done
        elif reason == "REQUEST_INVALID":  # past the last event
            assert self.after > self.known
        elif reason in ("TURN_NOT_FOUND", "SESSION_NOT_FOUND"):
            assert not self.sends
            assert not self.begun or CLOSED in self.turn.done
        elif error.cause == "store-down" and reason == "NO_PROCESS" and self.asks_the_store:
            assert DOWN in self.turn.done
        else:
            self.turn.fail(error)


def check_reports(
    turns: Iterable[Turn], stored: Mapping[tuple[SessionKey, str], TurnRecord]
) -> None:
    """Check that no turn stopped by itself, whether or not a stream saw its end."""
    for turn in turns:
        record = stored.get((turn.key, turn.turn_id))
        if record is not None and record.report is not None:
            turn.check_outcome(record.report)


def check_store(
    turns: Iterable[Turn], stored: Mapping[tuple[SessionKey, str], TurnRecord], given: Iterable[str]
) -> None:
    """Check that the store has what was seen, of every turn that an agent was given."""
    known = set(given)
    for turn in turns:
        record = stored.get((turn.key, turn.turn_id))
        if CLOSED in turn.done:
            continue
        assert (record is None) <= (turn.turn_id not in known), "a turn was forgotten"
        if record is None or CRASHED in turn.done:
            continue
        assert record.state != "recorded", "a turn has no end"
        if isinstance(turn.ending, TurnFinished):
            assert (record.state, record.last_sequence) == ("finished", turn.last)
        elif turn.ending:
            assert f"{record.reason} {record.cause}" == turn.ending
