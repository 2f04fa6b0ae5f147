"""Code that the synchronous and the asynchronous client share: answers and sessions.

Knows neither of channels nor of waiting.
"""

from dataclasses import dataclass
from datetime import date

from samovar.errors import TurnFailed
from samovar.events import (
    BlocksAbandoned,
    Event,
    Outcome,
    TextDelta,
    Timings,
    TurnFinished,
    TurnStarted,
    Usage,
    seconds,
    usage,
)
from samovar.v1 import session_pb2 as pb

CONTROL_DEADLINE = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A turn's final text, usage and timings."""

    text: str
    usage: Usage
    outcome: Outcome
    started: TurnStarted
    timings: Timings

    @property
    def turn_id(self) -> str:
        """The turn's id."""
        return self.started.turn_id

    @property
    def session(self) -> str:
        """The session's name."""
        return self.started.session_id


@dataclass(frozen=True, slots=True)
class Session:
    """A session; times are seconds since the epoch.

    `state` is the contract's in lower case; one that this version does not know is `unknown_N`.
    """

    session_id: str
    state: str
    profile: str
    model: str
    active_turn_id: str
    turn_count: int
    usage: Usage
    create_time: float
    update_time: float
    expire_time: float


@dataclass(frozen=True, slots=True)
class DailyUsage:
    """What a tenant's turns used on a day in UTC with a model, which is empty if not known.

    `turns` ended with a report, and `usage` is the sum of theirs. The end of `lost_turns` is not
    known; `lost_usage` is an estimate. `tenant` is empty for the caller's own.
    """

    day: date
    model: str
    turns: int
    usage: Usage
    lost_turns: int
    lost_usage: Usage
    tenant: str = ""


class AnswerMaker:
    """Builder of an answer from a turn's events."""

    def __init__(self) -> None:
        self._started: TurnStarted | None = None
        self._blocks: dict[tuple[str, int], str] = {}
        self._finished: TurnFinished | None = None

    def take(self, event: Event) -> None:
        """Add the next event."""
        if isinstance(event, TurnStarted):
            self._started = event
        elif isinstance(event, TurnFinished):
            self._finished = event
        elif isinstance(event, TextDelta) and not event.parent_tool_use_id:
            block = (event.message_id, event.block_index)
            self._blocks[block] = self._blocks.get(block, "") + event.text
        elif isinstance(event, BlocksAbandoned):
            void = event.message_id, event.from_block_index
            self._blocks = {
                block: text
                for block, text in self._blocks.items()
                if block[0] != void[0] or block[1] < void[1]
            }

    def answer(self) -> Answer:
        """Return the answer of a turn that ended. Raise `TurnFailed` if the agent failed."""
        started, finished = self._started, self._finished
        assert started is not None
        assert finished is not None
        if finished.outcome is Outcome.FAILED:
            raise TurnFailed(
                finished.errors,
                finished.upstream_status,
                finished.failure_cause,
                finished.upstream_retry_delay,
            )
        # A result that was cut is whole in the deltas.
        cut = finished.result_truncated_bytes > 0 or not finished.result
        text = "".join(self._blocks.values()) if cut else finished.result
        return Answer(text, finished.usage, finished.outcome, started, finished.timings)


def session(message: pb.SessionInfo) -> Session:
    """Return the session in a message."""
    states, number = pb.SessionInfo.State, message.state
    state = states.Name(number) if number in states.values() else f"STATE_UNKNOWN_{number}"
    return Session(
        message.session_id,
        state.removeprefix("STATE_").lower(),
        message.spec.profile,
        message.spec.model,
        message.active_turn_id,
        message.turn_count,
        usage(message.usage),
        seconds(message.create_time),
        seconds(message.update_time),
        seconds(message.expire_time),
    )


def daily_usage(message: pb.DailyUsage, tenant: str = "") -> DailyUsage:
    """Return what a message says was used."""
    return DailyUsage(
        date.fromisoformat(message.day),
        message.model,
        message.turns,
        usage(message.usage),
        message.lost_turns,
        usage(message.lost_usage),
        tenant,
    )


def day(value: date | None) -> str:
    """Return a day as requests have it, empty for none."""
    return value.isoformat() if value is not None else ""
