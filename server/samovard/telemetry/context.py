"""A place in a trace, as W3C Trace Context writes it.

Independent of spans and of the SDK, which need not be installed.
"""

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Context:
    """A span's place: the ids of trace and span in hexadecimal, and whether it is recorded.

    `state` is the `tracestate` of other vendors; it is passed to the exporter only.
    """

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The value of the header `traceparent`, built here and never copied from a caller's."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> "Context":
        """Return a new place in the same trace."""
        return replace(self, span_id=new_span_id())


def new_span_id() -> str:
    """Return a random id for a span that is created later."""
    return f"{random.getrandbits(64) or 1:016x}"


def parse(traceparent: str) -> Context | None:
    """Return the context that a `traceparent` of ours names, or None for any other text."""
    version, _, rest = traceparent.partition("-")
    parts = rest.split("-")
    if version != "00" or [len(part) for part in parts] != [32, 16, 2]:
        return None
    return Context(parts[0], parts[1], parts[2] == "01")
