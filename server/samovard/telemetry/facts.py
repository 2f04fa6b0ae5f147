"""The facts of calls, starts and turns from which traces, metrics and the log are made.

Plain values. The interceptor, the gate and the handler fill in those of a call as it proceeds, and
the core those of a start and of a turn. A turn is reported once, when both the turn and the call
that made it have ended. Independent of gRPC, spans, instruments and what a turn does.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog

from samovard.telemetry.context import Context
from samovard.telemetry.incidents import IncidentCounter, incident
from samovard.telemetry.stages import Stages

SEND = "samovar.v1.Session/Send"
OTHER = "_OTHER"  # a method that does not exist, or any other unknown value
MAX_ATTRIBUTE = (1 << 63) - 1  # of an integer in OTLP

_log = structlog.get_logger("samovard.turn")


class Audited(Protocol):
    """The audit log of one call that makes a turn."""

    def begin(self) -> Awaitable[None]:
        """Write that the turn may begin. Awaiting raises `NoProcess` if that fails."""

    def turn_ended(self, turn: "TurnFacts") -> Awaitable[None]:
        """Write how the turn ended, unless that is written already. Awaiting never raises."""


class Unaudited:
    """A stand-in for `Audited` where there is no audit log."""

    def begin(self) -> Awaitable[None]:
        """Return a completed future: there is nothing to write."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def turn_ended(self, turn: "TurnFacts") -> Awaitable[None]:
        """Return a completed future and ignore the turn."""
        return self.begin()


UNAUDITED = Unaudited()


@dataclass(eq=False, slots=True)
class CallFacts:
    """An RPC from its arrival to its end. Durations are in nanoseconds.

    `method` is `package.Service/Method`, or `_OTHER` if it does not exist; `original` is then the
    name that was called. `status` is gRPC's name of the code. `turn` is the turn that the call
    made, `joined` one that was already running or held. `user_agent` and `peer` identify the
    caller; they are set only if spans have them.
    """

    method: str
    stages: Stages
    attempt: int = 0
    original: str = ""
    context: Context | None = None
    span: Any = None  # the recorder's own
    user_agent: str = ""
    peer: str = ""
    tenant: str = ""
    session: str = ""
    turn_id: str = ""
    status: str = ""
    reason: str = ""
    cause: str = ""
    prompt_written: bool = False
    responses: int = 0
    bytes: int = 0
    write_blocked: int = 0
    turn: "TurnFacts | None" = None
    joined: "TurnFacts | None" = None
    ended: bool = False
    audited: Audited = UNAUDITED

    @classmethod
    def unwatched(cls, clock: Callable[[], float], wall: float) -> "CallFacts":
        """Return facts for a turn that no call made."""
        return cls("", Stages(clock, wall), ended=True)

    def names(self, session: str, turn_id: str) -> None:
        """Set the session and the turn that the call asks for."""
        self.session, self.turn_id = session, turn_id
        self.stages.ids = {**self.ids, "turn": turn_id}

    @property
    def ids(self) -> dict[str, str]:
        """The fields of a log line that identify the call's trace; empty without traces."""
        context = self.context
        if context is None:
            return {}
        return {"trace_id": context.trace_id, "span_id": context.span_id}

    def line(self) -> dict[str, object]:
        """Return the fields of the log line of a call that made no turn."""
        return {
            **self.ids,
            "method": self.method,
            "tenant": self.tenant,
            "session": self.session,
            "turn": self.turn_id,
            "status": self.status,
            "reason": self.reason,
            "cause": self.cause,
            "prompt_written": self.prompt_written,
            "rpc_attempt": self.attempt,
            "total_ms": round(sum(self.stages.durations().values()) / 1e6, 3),
        }


@dataclass(eq=False, slots=True)
class StartFacts:
    """A process start: its profile, its clock, its begin and end in nanoseconds, and its result.

    `parent` is the call of the turn that needed it. `context` is set when the span of the start
    is created; later turns of the process link to it.
    """

    process_id: str
    profile: str
    resumed: bool
    stages: Stages
    parent: Context | None
    begin: int
    reason: str = "turn"
    end: int | None = None
    pid: int = 0
    cause: str = ""  # why it failed
    waited: bool = False  # a long time for the agent's first answer
    context: Context | None = None


class TurnRecorder(IncidentCounter, Protocol):
    """The part of a recorder that a turn needs."""

    @property
    def detailed(self) -> bool:
        """True if the tools of a turn are to be recorded."""

    def turn_ended(self, turn: "TurnFacts") -> None:
        """Called once, when both the turn and its call have ended."""


@dataclass(eq=False, slots=True)
class Wait:
    """A wait of a turn for a process.

    `begin` and `end` are nanoseconds on the turn's clock; `depth` is how many turns wait in all.
    """

    begin: int
    reason: str
    depth: int
    end: int = 0
    result: str = ""


@dataclass(eq=False, slots=True)
class Tool:
    """A tool call of the agent, in nanoseconds; `end` is None until its result arrives."""

    tool_id: str
    name: str
    begin: int
    end: int | None = None
    failed: bool = False

    @property
    def error(self) -> str | None:
        """`interrupted` without a result, `tool_error` if the tool failed, else None."""
        if self.end is None:
            return "interrupted"
        return "tool_error" if self.failed else None


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens that a turn used, by type."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    @property
    def all_input(self) -> int:
        """All input tokens, including those of the cache; bounded by `MAX_ATTRIBUTE`."""
        return min(self.input + self.cache_read + self.cache_write, MAX_ATTRIBUTE)

    def since(self, before: "Tokens") -> "Tokens":
        """Return the tokens used since an earlier running total."""
        return Tokens(
            self.input - before.input,
            self.output - before.output,
            self.cache_read - before.cache_read,
            self.cache_write - before.cache_write,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens and US dollars of a turn, or of one model within it."""

    tokens: Tokens
    cost_usd: float


@dataclass(eq=False, slots=True)
class TurnFacts:
    """One turn. Fields that it has not reached keep their empty defaults.

    `labels` are its session's. `context` is the place of its `invoke_agent` span, and `previous`
    that of the session's turn before, if that ran on an earlier process. `start` is the start of
    the process that serves it. `traced` is True if the agent makes spans of its tools itself.
    `conversation` is the agent's id of the conversation, unique across sessions and tenants.
    `by_model` is what each model used, empty without a report. `requests` is what each request of
    the main agent to the model used. `ended` is in nanoseconds on the turn's clock.
    """

    recorder: TurnRecorder
    call: CallFacts
    tenant: str
    session: str
    turn_id: str
    profile: str = ""
    model: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    context: Context | None = None
    previous: Context | None = None
    start: StartFacts | None = None
    start_mode: str = ""
    process_id: str = ""
    conversation: str = ""
    pid: int = 0
    epoch: int = 0
    agent_version: str = ""
    prompt_written: bool = False
    traced: bool = False
    outcome: str = ""
    stop_reason: str = ""
    failure_cause: str = ""
    failure_text: str = ""  # the agent's own words, redacted
    reason: str = ""
    cause: str = ""
    steps: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    cost_usd: float = 0.0
    by_model: Mapping[str, Spent] = field(default_factory=dict)
    requests: list[Tokens] = field(default_factory=list)
    estimated: bool = False  # tokens and cost: there is no report
    events: int = 0
    waits: list[Wait] = field(default_factory=list)
    tools: dict[str, Tool] = field(default_factory=dict)
    ended: int | None = None
    _running: Tokens = field(default_factory=Tokens)  # of all `requests`

    def __post_init__(self) -> None:
        """Set its place in the trace, below the call."""
        if self.call.context is not None:
            self.context = self.call.context.child()
        self.call.turn = self
        self.call.stages.ids = self.ids

    @property
    def ids(self) -> dict[str, str]:
        """The fields of a log line that identify the turn."""
        return {**self.call.ids, "turn": self.turn_id}

    @property
    def failure(self) -> str:
        """Why the agent failed; empty if it did not. An interrupt is not a failure."""
        if self.reason in ("TURN_LOST", "INTERNAL"):
            return self.reason
        return "OUTCOME_FAILED" if self.outcome == "failed" else ""

    @property
    def response_model(self) -> str:
        """The model that cost the most of the turn; empty if unknown."""
        spent = self.by_model
        return max(spent, key=lambda m: (spent[m].cost_usd, spent[m].tokens.output), default="")

    @property
    def traceparent(self) -> str:
        """The parent of the agent's own spans; empty if the trace is not recorded."""
        context = self.context
        return context.traceparent if context is not None and context.sampled else ""

    def waits_for(self, reason: str, depth: int) -> Wait:
        """Begin a wait for a process and return it."""
        wait = Wait(self.call.stages.now(), reason, depth)
        self.waits.append(wait)
        return wait

    def waited(self, wait: Wait, start: StartFacts | None, result: str) -> None:
        """End a wait; `start` is given if the process has served no turn before."""
        stages = self.call.stages
        now = began = ready = stages.now()
        if start is not None:
            began = min(max(start.begin, wait.begin), now)
            ready = min(max(start.end or now, began), now)
        wait.end, wait.result = began if ready > began else now, result
        stages.add("start", ready - began)
        stages.add("wait", began - wait.begin + now - ready)

    def spent(self) -> Mapping[str, Spent]:
        """Return tokens and cost by model, under an empty name if the model is unknown."""
        return self.by_model or {"": Spent(self.tokens, self.cost_usd)}

    def requested(self, total: Tokens) -> None:
        """Record an answered request to the model; `total` is what all have used so far."""
        self.requests.append(total.since(self._running))
        self._running = total

    def turn_ended(self) -> None:
        """Record that the turn has ended; report it if its call has ended, too."""
        self.ended = self.call.stages.now()
        if self.call.ended:
            self._tell()

    def call_ended(self) -> None:
        """Report the turn if it has ended; otherwise it goes on without its call."""
        if self.ended is not None:
            self._tell()

    def _tell(self) -> None:
        self.recorder.turn_ended(self)
        if self.prompt_written:
            if _log.is_enabled_for(logging.INFO):  # the line is long
                _log.info("turn.finished", **self._line())
        else:
            incident(self.recorder, "turn.refused", **self._line())

    def _line(self) -> dict[str, object]:
        call, stages = self.call, self.call.stages
        durations = stages.durations()
        times = {**durations, **stages.parts, "total": sum(durations.values())}
        times["write_blocked"] = call.write_blocked
        return {
            **self.ids,
            "tenant": self.tenant,
            "session": self.session,
            "profile": self.profile,
            "start_mode": self.start_mode,
            "process_id": self.process_id,
            "epoch": self.epoch,
            "status": call.status,
            "reason": self.reason,
            "cause": self.cause,
            "outcome": self.outcome,
            "failure_cause": self.failure_cause,
            "prompt_written": self.prompt_written,
            "rpc_attempt": call.attempt,
            **{f"{name}_ms": round(time / 1e6, 3) for name, time in times.items()},
            "events": self.events,
            "responses": call.responses,
            "bytes": call.bytes,
            "input_tokens": self.tokens.input,
            "output_tokens": self.tokens.output,
            "cost_usd": self.cost_usd,
            "estimated": self.estimated,
        }
