"""The facts of calls, starts and turns that traces, metrics and the log are made of.

Plain values: those of a call are filled in by the interceptor, the gate and the handler, those of
a start and of a turn by the core, as they go. A turn is reported once, when both the turn and the
call that made it have ended. Knows nothing of gRPC, spans or instruments, nor of what a turn does.
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
OTHER = "_OTHER"  # a method that does not exist, and any other value that is not known
MAX_ATTRIBUTE = (1 << 63) - 1  # of an integer in OTLP

_log = structlog.get_logger("samovard.turn")


class Audited(Protocol):
    """What the audit log is told of a call that makes a turn."""

    def begin(self) -> Awaitable[None]:
        """Write that the turn may begin. The result raises `NoProcess` if that cannot be done."""

    def turn_ended(self, turn: "TurnFacts") -> Awaitable[None]:
        """Write how the turn ended, unless the same is written. The result never raises."""


class Unaudited:
    """What stands for it where there is no audit log."""

    def begin(self) -> Awaitable[None]:
        """Return what is done already."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    def turn_ended(self, turn: "TurnFacts") -> Awaitable[None]:
        """Return what is done already."""
        return self.begin()


UNAUDITED = Unaudited()


@dataclass(eq=False, slots=True)
class CallFacts:
    """An RPC from its arrival to its end. Durations are in nanoseconds.

    `method` is `package.Service/Method`, `_OTHER` for one that does not exist, whose name is
    then `original`; `status` is gRPC's name of the code. `turn` is the turn that the call
    made, `joined` one that ran or was held already. `user_agent` and `peer` say who called,
    only where spans have them.
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
        """Makes what stands for a call where there is none."""
        return cls("", Stages(clock, wall), ended=True)

    def names(self, session: str, turn_id: str) -> None:
        """Takes note of the turn that the call asks for."""
        self.session, self.turn_id = session, turn_id
        self.stages.ids = {**self.ids, "turn": turn_id}

    @property
    def ids(self) -> dict[str, str]:
        """What names the call's trace in a log line."""
        context = self.context
        if context is None:
            return {}
        return {"trace_id": context.trace_id, "span_id": context.span_id}

    def line(self) -> dict[str, object]:
        """Gives the fields of the log line of a call that made no turn."""
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
    """A start: for whom, on whose clock, from when to when, and what became of it.

    `parent` is the call of the turn that needed it. `context` is set once it is told: later
    turns of the process link to it.
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
    waited: bool = False  # long, for the agent's answer
    context: Context | None = None


class TurnRecorder(IncidentCounter, Protocol):
    """What a turn needs of the recorder."""

    @property
    def detailed(self) -> bool:
        """True if a turn's tools are to be followed."""

    def turn_ended(self, turn: "TurnFacts") -> None:
        """Called once, when a turn and its call have both ended."""


@dataclass(eq=False, slots=True)
class Wait:
    """A turn waited: from when to when on its clock, why, and behind how many in all."""

    begin: int
    reason: str
    depth: int
    end: int = 0
    result: str = ""


@dataclass(eq=False, slots=True)
class Tool:
    """The agent used a tool; `end` is None until its result came."""

    tool_id: str
    name: str
    begin: int
    end: int | None = None
    failed: bool = False

    @property
    def error(self) -> str | None:
        """What went wrong, in a word."""
        if self.end is None:
            return "interrupted"
        return "tool_error" if self.failed else None


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a turn used, by type."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0

    @property
    def all_input(self) -> int:
        """All input tokens, those of the cache among them."""
        return min(self.input + self.cache_read + self.cache_write, MAX_ATTRIBUTE)

    def since(self, before: "Tokens") -> "Tokens":
        """Return what was used since a running total."""
        return Tokens(
            self.input - before.input,
            self.output - before.output,
            self.cache_read - before.cache_read,
            self.cache_write - before.cache_write,
        )


@dataclass(frozen=True, slots=True)
class Spent:
    """What a turn used, or what one model used of it."""

    tokens: Tokens
    cost_usd: float


@dataclass(eq=False, slots=True)
class TurnFacts:
    """One turn. What it did not get to has the value of nothing.

    `labels` are its session's; `context` is the place of its `invoke_agent`; `previous` that
    of the session's turn before, if it ran on an earlier process; `start` is of the process
    that serves it; `traced` tells whether the agent makes spans of its tools itself.
    `conversation` is the agent's id of it, which no other session has, of whatever tenant.
    `by_model` is what each model used, empty without a report; `requests` what each request
    of the main agent to the model used.
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
    failure_text: str = ""  # what the agent says of it, redacted
    reason: str = ""
    cause: str = ""
    steps: int = 0
    tokens: Tokens = field(default_factory=Tokens)
    cost_usd: float = 0.0
    by_model: Mapping[str, Spent] = field(default_factory=dict)
    requests: list[Tokens] = field(default_factory=list)
    estimated: bool = False  # its tokens: it has no report
    events: int = 0
    waits: list[Wait] = field(default_factory=list)
    tools: dict[str, Tool] = field(default_factory=dict)
    ended: int | None = None
    _running: Tokens = field(default_factory=Tokens)  # of all `requests`

    def __post_init__(self) -> None:
        """Takes its place below the call."""
        if self.call.context is not None:
            self.context = self.call.context.child()
        self.call.turn = self
        self.call.stages.ids = self.ids

    @property
    def ids(self) -> dict[str, str]:
        """What names the turn in a log line."""
        return {**self.call.ids, "turn": self.turn_id}

    @property
    def failure(self) -> str:
        """Why the agent failed, empty if it did not: an interrupt is no failure."""
        if self.reason in ("TURN_LOST", "INTERNAL"):
            return self.reason
        return "OUTCOME_FAILED" if self.outcome == "failed" else ""

    @property
    def response_model(self) -> str:
        """The model that cost the most of the turn; empty if that is not known."""
        spent = self.by_model
        return max(spent, key=lambda m: (spent[m].cost_usd, spent[m].tokens.output), default="")

    @property
    def traceparent(self) -> str:
        """What the agent's own spans are to hang below; empty if nobody records them."""
        context = self.context
        return context.traceparent if context is not None and context.sampled else ""

    def waits_for(self, reason: str, depth: int) -> Wait:
        """Begins a wait for a process."""
        wait = Wait(self.call.stages.now(), reason, depth)
        self.waits.append(wait)
        return wait

    def waited(self, wait: Wait, start: StartFacts | None, result: str) -> None:
        """Ends a wait; `start` is that of a process that has served nobody before."""
        stages = self.call.stages
        now = began = ready = stages.now()
        if start is not None:
            began = min(max(start.begin, wait.begin), now)
            ready = min(max(start.end or now, began), now)
        wait.end, wait.result = began if ready > began else now, result
        stages.add("start", ready - began)
        stages.add("wait", began - wait.begin + now - ready)

    def spent(self) -> Mapping[str, Spent]:
        """Return what was used, by model; under an empty name if it is not known which it was."""
        return self.by_model or {"": Spent(self.tokens, self.cost_usd)}

    def requested(self, total: Tokens) -> None:
        """Take note that a request to the model is answered, and what all have used so far."""
        self.requests.append(total.since(self._running))
        self._running = total

    def turn_ended(self) -> None:
        """Takes note that the turn has ended."""
        self.ended = self.call.stages.now()
        if self.call.ended:
            self._tell()

    def call_ended(self) -> None:
        """Takes note that the call has ended; the turn may go on without it."""
        if self.ended is not None:
            self._tell()

    def _tell(self) -> None:
        self.recorder.turn_ended(self)
        if self.prompt_written:
            if _log.is_enabled_for(logging.INFO):  # the line is a long one
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
