"""Turns, calls and processes as metrics.

Each histogram is recorded once per turn, at its end; sums only grow. Labels are bounded: never a
session, a turn, a process, a path or a peer, and a tenant only if an operator has listed it. Uses
the SDK.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View

from samovard.telemetry import log, names
from samovard.telemetry.facts import OTHER, SEND, CallFacts, StartFacts
from samovard.telemetry.facts import TurnFacts as Turn
from samovard.telemetry.incidents import INCIDENTS
from samovard.telemetry.recorder import Gauges, ModelRequest
from samovard.telemetry.spans import below

STAGES = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0),
)
DURATIONS = tuple(0.01 * 2**power for power in range(20))
TOKENS = tuple(float(4**power) for power in range(14))
BUCKETS: dict[tuple[float, ...], tuple[str, ...]] = {
    STAGES: (names.STAGE_DURATION, names.PART_DURATION, names.STORE_DURATION, names.LOOP_LAG),
    DURATIONS: (
        names.CALL_DURATION,
        names.TURN_DURATION,
        names.TIME_TO_FIRST_TEXT,
        names.START_DURATION,
        names.BROKER_FIRST_BYTE,
        names.INVOKE_AGENT_DURATION,
        names.EXECUTE_TOOL_DURATION,
    ),
    TOKENS: (*names.TOKENS_OF_REQUEST.values(), names.OLD_TOKEN_USAGE),
}

MOST_VALUES = 50  # number of label values that are not known beforehand
LONGEST_VALUE = 100  # characters of such a value
#: The API does not report which tokens belong to text and which to images.
MODALITY = "unknown"
TOKEN_LABELS = (
    names.GEN_AI_OPERATION_NAME,
    names.GEN_AI_PROVIDER_NAME,
    names.GEN_AI_TOKEN_MODALITY,
    names.GEN_AI_REQUEST_MODEL,
    names.GEN_AI_RESPONSE_MODEL,
)
MEMORY = "Resident memory of processes with all their descendants."

#: Reasons for dropping a line of an agent.
DROPPED_FOR = ("unsolicited", "foreign", "noise")

Labels = dict[str, str | bool]


def views() -> list[View]:
    """Return views with the buckets of every histogram; turns outlast the SDK's default buckets."""
    return [
        View(instrument_name=name, aggregation=ExplicitBucketHistogramAggregation(buckets))
        for buckets, listed in BUCKETS.items()
        for name in listed
    ]


class Instruments:
    """Record samples. `tools` are the tools whose names may be label values.

    With `tenants`, turns, refusals and cost are counted for each tenant listed, and as `_OTHER`
    for the rest. With `old_names`, renamed metrics are exported under their old names as well.
    """

    def __init__(
        self,
        meter: Meter,
        tools: Collection[str],
        lost: Callable[[], Mapping[str, int]],
        *,
        tenants: Collection[str] = (),
        old_names: bool = False,
    ) -> None:
        self._tools = frozenset(tools)
        self._tenants = frozenset(tenants)
        self._old_names = old_names
        self._models = Seen()
        self.gauges = Gauges()
        self.isolation: dict[str, str] = {}
        histogram = meter.create_histogram
        self._calls = histogram(names.CALL_DURATION, "s")
        self._turns = histogram(names.TURN_DURATION, "s")
        self._first_text = histogram(names.TIME_TO_FIRST_TEXT, "s")
        self._stages = histogram(names.STAGE_DURATION, "s")
        self._parts = histogram(names.PART_DURATION, "s")
        self._starts = histogram(names.START_DURATION, "s")
        self._stored = histogram(names.STORE_DURATION, "s")
        self._lag = histogram(names.LOOP_LAG, "s")
        self._agents = histogram(names.INVOKE_AGENT_DURATION, "s")
        self._tool_calls = histogram(names.EXECUTE_TOOL_DURATION, "s")
        self._tokens = TokenMetrics(meter, self._models, old_names=old_names)
        self._refused = Sum(meter, names.TURN_REFUSED, "{turn}", "reason", "cause", "tenant")
        self._cost = Sum(meter, names.TURN_COST, "{USD}", "profile", "model", "tenant")
        self._finished = Sum(meter, names.TURN_FINISHED, "{turn}", "outcome", "tenant")
        self._events = Sum(meter, names.EVENTS_COUNT, "{event}")
        self._responses = Sum(meter, names.RESPONSES_COUNT, "{response}")
        self._bytes = Sum(meter, names.RESPONSE_BYTES, "By")
        self._transitions = Sum(meter, names.TRANSITIONS, "{transition}", "from", "to", "cause")
        self._dropped = Sum(meter, names.FRAMES_DROPPED, "{frame}", "reason")
        self._requests = Sum(
            meter, names.BROKER_REQUESTS, "{request}", "result", "profile", "tenant"
        )
        self._spent = Sum(meter, names.BROKER_TOKENS, "{token}", "type", "profile", "tenant")
        self._first_byte = histogram(names.BROKER_FIRST_BYTE, "s")
        self._incidents = Sum(meter, names.INCIDENTS, "{event}", "event")
        # Series that start at 0 show an increase the first time something happens.
        for word in INCIDENTS:
            self._incidents.add(0, word)
        for reason in DROPPED_FOR:
            self._dropped.add(0, reason)
        meter.create_observable_counter(names.DROPPED, [lambda _: _by("signal", lost())], "{item}")
        logged = [lambda _: [Observation(log.dropped())]]
        meter.create_observable_counter(names.LOG_DROPPED, logged, "{line}")
        self._watch(meter)

    def _watch(self, meter: Meter) -> None:
        def of(field: str, label: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
            return lambda _: _by(label, getattr(self.gauges, field))

        turns = meter.create_observable_up_down_counter
        turns(names.TURN_RUNNING, [of("running", "profile")], "{turn}")
        turns(names.TURN_WAITING, [of("waiting", "profile")], "{turn}")
        gauge = meter.create_observable_gauge
        gauge(names.MAX_WAIT, [lambda _: [Observation(self.gauges.max_wait)]], "s")
        gauge(names.PROCESS_COUNT, [of("processes", "state")], "{process}")
        gauge(names.PROCESS_MEMORY, [of("memory", "state")], "By", MEMORY)
        gauge(names.SESSION_COUNT, [of("sessions", "state")], "{session}")
        left = [lambda _: [Observation(self.gauges.removing)]]
        gauge(names.REMOVAL_PENDING, left, "{entry}")
        walls = [lambda _: [Observation(1, self.isolation)] if self.isolation else []]
        gauge(names.ISOLATION, walls, "{level}")
        down = [lambda _: [Observation(int(self.gauges.audit_down))]]
        gauge(names.AUDIT_DOWN, down, "{outage}")
        gauge(names.CERTIFICATE_EXPIRY, [lambda _: _known(self.gauges.certificate)], "s")

    def call(self, call: CallFacts) -> None:
        """Count a call that has ended."""
        context = _exemplar(call)
        labels: Labels = {
            names.RPC_SYSTEM_NAME: names.GRPC,
            names.RPC_METHOD: call.method,
            names.RPC_STATUS_CODE: call.status,
        }
        if call.status in names.SERVER_ERRORS:
            labels[names.ERROR_TYPE] = call.status
        if self._old_names:
            labels[names.OLD_STATUS_CODE] = call.status
        self._calls.record(_total(call), labels, context)
        self._responses.add(call.responses)
        self._bytes.add(call.bytes)
        if call.method == SEND and call.turn is call.joined is None and call.status != "OK":
            reason, tenant = call.reason or call.status, self._tenant(call.tenant)
            self._refused.add(1, reason, call.cause, tenant)

    def turn(self, turn: Turn) -> None:
        """Count a turn after both it and its call have ended."""
        if not turn.prompt_written:
            self._refused.add(1, turn.reason, turn.cause, self._tenant(turn.tenant))
            return
        if self._tenants:
            self._finished.add(1, turn.outcome, self._tenant(turn.tenant))
        call, context = turn.call, _exemplar(turn.call)
        mode: Labels = {"start_mode": turn.start_mode}
        for name, time in call.stages.durations().items():
            self._stages.record(time / 1e9, mode | {"stage": name}, context)
        for name, time in call.stages.parts.items():
            self._parts.record(time / 1e9, mode | {"part": name}, context)
        profile = mode | {"profile": turn.profile}
        self._turns.record(_total(call), profile | {"outcome": turn.outcome}, context)
        begin, text = call.stages.at("receive"), call.stages.at("first_text")
        if begin is not None and text is not None:
            self._first_text.record((text - begin) / 1e9, profile, context)
        self._events.add(turn.events)
        self._agent(turn, context)

    def _agent(self, turn: Turn, context: Context | None) -> None:
        stages = turn.call.stages
        begin, end = stages.at("process_ready"), stages.at("finish") or turn.ended
        labels: Labels = {
            names.GEN_AI_OPERATION_NAME: names.INVOKE_AGENT,
            names.GEN_AI_PROVIDER_NAME: names.ANTHROPIC,
            names.GEN_AI_AGENT_NAME: turn.profile,
        }
        if begin is not None and end is not None:
            failure: Labels = {names.ERROR_TYPE: turn.failure} if turn.failure else {}
            self._agents.record((end - begin) / 1e9, labels | failure, context)
        for tool in turn.tools.values():
            name = tool.name if tool.name in self._tools else OTHER
            error: Labels = {names.ERROR_TYPE: tool.error} if tool.error else {}
            over = tool.end or end or tool.begin
            self._tool_calls.record(
                (over - tool.begin) / 1e9, {names.GEN_AI_TOOL_NAME: name, **error}, context
            )
        self._tokens.turn(turn, context)
        tenant = self._tenant(turn.tenant)
        for model, spent in turn.spent().items():
            answered = self._models(model) or turn.model
            self._cost.add(spent.cost_usd, turn.profile, answered, tenant)

    def _tenant(self, tenant: str) -> str | None:
        if not self._tenants:
            return None
        return tenant if tenant in self._tenants else OTHER

    def start(self, start: StartFacts) -> None:
        """Count a start, with its duration and result."""
        labels: Labels = {
            "reason": start.reason,
            "resumed": start.resumed,
            "result": start.cause or "ready",
        }
        end = start.end if start.end is not None else start.begin
        self._starts.record((end - start.begin) / 1e9, labels)

    def moved(self, source: str, target: str, cause: str) -> None:
        """Count a change of a process's state."""
        self._transitions.add(1, source, target, cause)

    def dropped(self, reason: str, count: int) -> None:
        """Count dropped lines of agents."""
        self._dropped.add(count, reason)

    def model_requested(self, request: ModelRequest) -> None:
        """Count a request to the model's API and its tokens by kind."""
        profile, tenant = request.profile, self._tenant(request.tenant)
        self._requests.add(1, request.result, profile, tenant)
        for kind, count in request.tokens.items():
            self._spent.add(count, kind, profile, tenant)
        if request.first_byte is not None:
            self._first_byte.record(request.first_byte, {"profile": profile})

    def incident(self, event: str) -> None:
        """Count an incident."""
        self._incidents.add(1, event)

    def stored(self, operation: str, seconds: float, result: str) -> None:
        """Record a store call: its name, duration in seconds, and result."""
        self._stored.record(seconds, {"operation": operation, "result": result})

    def lag(self, seconds: float) -> None:
        """Record the lag of the event loop in seconds."""
        self._lag.record(seconds)


def _by(label: str, counts: Mapping[str, int]) -> list[Observation]:
    return [Observation(count, {label: name}) for name, count in counts.items()]


def _known(value: float | None) -> list[Observation]:
    return [] if value is None else [Observation(value)]


def _total(call: CallFacts) -> float:
    return sum(call.stages.durations().values()) / 1e9


def _exemplar(call: CallFacts) -> Context | None:
    """Return the context for a sample's exemplar, or None if the trace is not recorded."""
    context = call.context
    return below(context) if context is not None and context.sampled else None


class Seen:
    """The first values seen of a label that is not known beforehand, such as names of models."""

    def __init__(self) -> None:
        self._values: set[str] = set()

    def __call__(self, value: str) -> str:
        """Return the value, or `_OTHER` if it is too long or too many others came first."""
        if value not in self._values:
            if len(self._values) == MOST_VALUES or len(value) > LONGEST_VALUE:
                return OTHER
            self._values.add(value)
        return value


class Sum:
    """A sum for each combination of label values; a label whose value is None is left out.

    Adding to a counter of the SDK takes about 20 microseconds, too long within a turn. Adding to
    a sum takes one, since the SDK reads it only on export. Sums have no exemplars.
    """

    def __init__(self, meter: Meter, name: str, unit: str, *labels: str) -> None:
        self._labels = labels
        self._sums: dict[tuple[str | None, ...], float] = {}
        meter.create_observable_counter(name, [self._read], unit)

    def add(self, count: float, *values: str | None) -> None:
        """Add to the sum for these label values, given in the order of the labels."""
        self._sums[values] = self._sums.get(values, 0) + count

    def _read(self, _: CallbackOptions) -> Iterable[Observation]:
        # A copy: exporters read on their own threads while the loop adds.
        for values, total in self._sums.copy().items():
            labels = zip(self._labels, values, strict=True)
            yield Observation(total, {label: value for label, value in labels if value is not None})


class TokenMetrics:
    """Count tokens. `models` bounds the names of models.

    With `old_names`, the old metric of tokens is recorded as well.
    """

    def __init__(self, meter: Meter, models: Seen, *, old_names: bool) -> None:
        unit = "{token}"
        self._models = models
        self._used = {
            kind: Sum(meter, name, unit, *TOKEN_LABELS) for kind, name in names.TOKENS_USED.items()
        }
        self._of_request = {
            kind: meter.create_histogram(name, unit)
            for kind, name in names.TOKENS_OF_REQUEST.items()
        }
        self._old = meter.create_histogram(names.OLD_TOKEN_USAGE, unit) if old_names else None

    def turn(self, turn: Turn, context: Context | None) -> None:
        """Count the tokens that a turn used."""
        labels = {
            names.GEN_AI_OPERATION_NAME: names.CHAT,
            names.GEN_AI_PROVIDER_NAME: names.ANTHROPIC,
            names.GEN_AI_REQUEST_MODEL: turn.model,
        }
        for model, spent in turn.spent().items():
            answered = self._models(model) or None
            values = (names.CHAT, names.ANTHROPIC, MODALITY, turn.model, answered)
            for kind, used in self._used.items():
                used.add(getattr(spent.tokens, kind), *values)
        for request in turn.requests:
            for kind, histogram in self._of_request.items():
                histogram.record(getattr(request, kind), labels, context)
        if self._old is not None:
            for kind, count in (("input", turn.tokens.all_input), ("output", turn.tokens.output)):
                self._old.record(count, labels | {names.OLD_TOKEN_TYPE: kind}, context)
