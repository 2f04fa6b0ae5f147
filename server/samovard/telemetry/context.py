"""Where something stands in a trace, as W3C Trace Context spells it.

Knows nothing of spans; the SDK need not be there.
"""

import random
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Context:
    """A span's place: its trace and itself, in hexadecimal, and whether it is recorded.

    `state` is what others keep in the trace (`tracestate`); it goes to the exporter only.
    """

    trace_id: str
    span_id: str
    sampled: bool
    state: str = ""

    @property
    def traceparent(self) -> str:
        """The header's value. It is made of our own parts only, never copied from a caller's."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"

    def child(self) -> "Context":
        """Gives a new place in the same trace."""
        return replace(self, span_id=new_span_id())


def new_span_id() -> str:
    """Makes the id of a span that is not made yet."""
    return f"{random.getrandbits(64) or 1:016x}"


def parse(traceparent: str) -> Context | None:
    """Reads what `traceparent` wrote; None for anything else."""
    version, _, rest = traceparent.partition("-")
    parts = rest.split("-")
    if version != "00" or [len(part) for part in parts] != [32, 16, 2]:
        return None
    return Context(parts[0], parts[1], parts[2] == "01")
