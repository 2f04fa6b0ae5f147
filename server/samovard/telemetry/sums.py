"""Counters that are read when they are exported, not called when something happens.

An instrument of the SDK takes some 20 microseconds to be told, which a turn has not; a sum
takes one. It points to no trace. Knows the SDK.
"""

from collections.abc import Iterable

from opentelemetry.metrics import CallbackOptions, Meter, Observation


class Sum:
    """A sum for each combination of its labels; a label whose value is None is left out."""

    def __init__(self, meter: Meter, name: str, unit: str, *labels: str) -> None:
        self._labels = labels
        self._sums: dict[tuple[str | None, ...], float] = {}
        meter.create_observable_counter(name, [self._read], unit)

    def add(self, count: float, *values: str | None) -> None:
        """Adds to the sum of these values of the labels, in their order."""
        self._sums[values] = self._sums.get(values, 0) + count

    def _read(self, _: CallbackOptions) -> Iterable[Observation]:
        # A copy: exporters' threads read what the loop adds to.
        for values, total in self._sums.copy().items():
            labels = zip(self._labels, values, strict=True)
            yield Observation(total, {label: value for label, value in labels if value is not None})
