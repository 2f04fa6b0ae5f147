"""The trace that a call belongs to: the span that is active in the caller's program.

Knows the form of `traceparent` (W3C Trace Context). Needs no OpenTelemetry, and imports none.
"""

import sys

Metadata = tuple[tuple[str, str], ...]


def metadata() -> Metadata:
    """Return the metadata that makes the active span the parent of a call, if there is one."""
    # A program with an active span has imported the API. To import it here would make every
    # program wait for it, and where it is not installed, fail.
    trace = sys.modules.get("opentelemetry.trace")
    current = getattr(trace, "get_current_span", None)  # not yet, while it is being imported
    if current is None:
        return ()
    span = current().get_span_context()
    if not span.is_valid:
        return ()
    return (("traceparent", f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"),)
