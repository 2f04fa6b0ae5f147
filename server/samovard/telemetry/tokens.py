"""What turns used of models, as metrics: tokens by model, and those of each request.

Knows the SDK.
"""

from opentelemetry.context import Context
from opentelemetry.metrics import Meter

from samovard.telemetry import names
from samovard.telemetry.labels import Seen
from samovard.telemetry.observation import TurnFacts as Turn
from samovard.telemetry.sums import Sum

#: The API does not say which tokens are of a text and which of a picture.
MODALITY = "unknown"
LABELS = (
    names.GEN_AI_OPERATION_NAME,
    names.GEN_AI_PROVIDER_NAME,
    names.GEN_AI_TOKEN_MODALITY,
    names.GEN_AI_REQUEST_MODEL,
    names.GEN_AI_RESPONSE_MODEL,
)


class TokenMetrics:
    """Counts tokens. `models` bounds the names of models; with `old_names` also as of old."""

    def __init__(self, meter: Meter, models: Seen, *, old_names: bool) -> None:
        unit = "{token}"
        self._models = models
        self._used = {
            kind: Sum(meter, name, unit, *LABELS) for kind, name in names.TOKENS_USED.items()
        }
        self._of_request = {
            kind: meter.create_histogram(name, unit)
            for kind, name in names.TOKENS_OF_REQUEST.items()
        }
        self._old = meter.create_histogram(names.OLD_TOKEN_USAGE, unit) if old_names else None

    def turn(self, turn: Turn, context: Context | None) -> None:
        """Count what a turn used."""
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
