"""The agent's own spans, and the trace that they belong to.

A process serves many callers: the context in its environment would put every turn into its first
caller's trace. So each process has a parked context, which is never sampled and fixed for its life,
and is sent another one for a turn that is recorded. All of it was measured on claude 2.1.330: a
context ending in `-00` exports nothing; an empty or invalid one makes a trace of the turn's own.
Knows nothing of spans.
"""

from dataclasses import dataclass
from urllib.parse import quote

import structlog

_log = structlog.get_logger("samovard.tracing")

_VARIABLES = {
    "CLAUDE_CODE_ENABLE_TELEMETRY": "1",
    "CLAUDE_CODE_ENHANCED_TELEMETRY_BETA": "1",
    # Needed for any context to be sent under a custom base URL.
    "CLAUDE_CODE_PROPAGATE_TRACEPARENT": "1",
    # Without it a failed export is not reported.
    "CLAUDE_CODE_OTEL_DIAG_STDERR": "1",
    "OTEL_TRACES_EXPORTER": "otlp",
    # Without it nothing is exported.
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    # A process that is killed loses its last batch.
    "OTEL_TRACES_EXPORT_INTERVAL": "1000",
}


def parked(process_id: str) -> str:
    """Return the context that a process has between its turns; its id is random."""
    return f"00-{process_id}-{process_id[:16]}-00"


@dataclass(eq=False, slots=True)
class Tracing:
    """Whether agents export spans of their own, and where to."""

    endpoint: str = ""
    refused_by: str = ""  # the version that does not take a context

    def on(self, version: str) -> bool:
        """True if agents of a version are sent their context."""
        return bool(self.endpoint) and self.refused_by != version

    def refused(self, version: str) -> None:
        """Record that a version does not take a context; log it once."""
        if self.refused_by != version:
            self.refused_by = version
            _log.warning("tracing.refused", version=version)

    def variables(
        self, process_id: str, tenant: str, traceparent: str, near: str = ""
    ) -> dict[str, str]:
        """Return the variables that an agent is started with, for a turn of this context or for
        none. `near` is where it exports to, if that is not the endpoint itself.
        """
        resource = {"service.instance.id": process_id, "samovar.tenant.id": tenant}
        known = [f"{name}={quote(value, safe='')}" for name, value in resource.items() if value]
        return {
            **_VARIABLES,
            "OTEL_EXPORTER_OTLP_ENDPOINT": near or self.endpoint,
            "OTEL_RESOURCE_ATTRIBUTES": ",".join(known),
            "TRACEPARENT": traceparent or parked(process_id),
        }


class Parking:
    """The context that one process has, as far as it was sent; it has none if `parked` is empty."""

    def __init__(self, parked: str, held: str) -> None:
        self._parked = parked
        self._held = (held or parked) if parked else ""

    @property
    def away(self) -> bool:
        """True while the process has a turn's context."""
        return self._held != self._parked

    def change(self, traceparent: str) -> str:
        """Return the context to send to the process for a turn; empty if it has that already."""
        wanted = traceparent or self._parked
        if wanted == self._held or not self._parked:
            return ""
        self._held = wanted
        return wanted

    def failed(self) -> None:
        """Record that the process refused a turn's context, and so kept the parked one."""
        self._held = self._parked
