"""A turn's spans as bars on one time axis. Draws nothing.

Times are milliseconds since the call came in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from samovard.telemetry import names
from samovard.telemetry.facts import SEND

#: The agent's own spans, as claude 2.1.330 names them.
INTERACTION, MODEL_REQUEST, AGENT_TOOL = (
    "claude_code.interaction",
    "claude_code.llm_request",
    "claude_code.tool",
)
FIRST_TOKEN = "ttft_ms"
_KINDS = {
    SEND: "call",
    names.WAIT: "start",
    names.PROCESS_START: "start",
    MODEL_REQUEST: "model",
}


Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it came in; times in nanoseconds since the epoch."""

    name: str
    trace_id: str
    span_id: str
    parent: str
    begin: int
    end: int
    attributes: Mapping[str, Value]
    events: tuple[tuple[str, int], ...] = ()
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the turn."""

    name: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Bar:
    """One span: its depth below the call, its begin and its end.

    `kind` is `call`, `start`, `agent`, `model` or `tool`; `first` is when the first token of a
    model's answer came, None if it is not known.
    """

    name: str
    kind: str
    depth: int
    begin: float
    end: float
    first: float | None = None
    failed: bool = False

    @property
    def ttft(self) -> str:
        """The time to the first token in words, empty if it is not known."""
        return "" if self.first is None else f"{self.first - self.begin:.0f} ms"


@dataclass(frozen=True, slots=True)
class Waterfall:
    """The bars of a turn, with its question, its process and its stages."""

    title: str
    pid: int
    start_mode: str
    trace_id: str
    total: float
    stages: tuple[Stage, ...]
    bars: tuple[Bar, ...]

    @property
    def whole(self) -> bool:
        """True if the agent's own spans are included."""
        return any(bar.name == INTERACTION for bar in self.bars)

    def as_json(self) -> dict[str, object]:
        """Return the waterfall for machines; times are in milliseconds."""
        return {
            "trace_id": self.trace_id,
            "pid": self.pid,
            "start_mode": self.start_mode,
            "total_ms": round(self.total, 3),
            "stages_ms": {stage.name: round(stage.end - stage.begin, 3) for stage in self.stages},
            "spans": [bar.name for bar in self.bars],
        }


def waterfall(title: str, pid: int, call: Span, spans: Sequence[Span]) -> Waterfall:
    """Return the waterfall of a turn: its call's span and all spans of the same trace."""
    below: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda span: (span.begin, -span.end)):
        if span.trace_id == call.trace_id:
            below.setdefault(span.parent, []).append(span)
    return Waterfall(
        title,
        pid,
        str(call.attributes.get(names.START_MODE, "")),
        call.trace_id,
        (call.end - call.begin) / 1e6,
        tuple(_stages(call)),
        tuple(_bars(call, call.begin, below, 0)),
    )


def _stages(call: Span) -> Iterator[Stage]:
    for (_, before), (name, at) in pairwise(call.events):
        yield Stage(name, (before - call.begin) / 1e6, (at - call.begin) / 1e6)


def _bars(span: Span, begin: int, below: Mapping[str, list[Span]], depth: int) -> Iterator[Bar]:
    yield _bar(span, begin, depth)
    for child in below.get(span.span_id, ()):
        yield from _bars(child, begin, below, depth + 1)


def _bar(span: Span, begin: int, depth: int) -> Bar:
    start, end = (span.begin - begin) / 1e6, (span.end - begin) / 1e6
    name, first = span.name, span.attributes.get(FIRST_TOKEN)
    if name == AGENT_TOOL:
        name = f"{name} {span.attributes.get(names.GEN_AI_TOOL_NAME, '')}".strip()
    return Bar(
        name,
        _kind(span.name),
        depth,
        start,
        end,
        start + float(first) if first and _kind(span.name) == "model" else None,
        span.failed,
    )


def _kind(name: str) -> str:
    if name.startswith((AGENT_TOOL, names.EXECUTE_TOOL)):
        return "tool"
    return _KINDS.get(name, "agent")
