"""What is exported and where to. Independent of settings and of the SDK."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Export:
    """The destination: `endpoint` is an OTLP endpoint, empty for none.

    `protocol` is `grpc` or `http/protobuf`. `prometheus` is the address that serves metrics, empty
    for none. Labels name only the `tools` and `tenants` listed here. With `callers`, spans of
    calls identify the caller. With `old_names`, renamed names are exported under their old names
    as well. `flush` is the longest time in seconds that shutdown waits for the last export.
    """

    server_id: str
    version: str
    endpoint: str = ""
    protocol: str = "grpc"
    sample_ratio: float = 1.0
    prometheus: str = ""
    tools: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    callers: bool = False
    old_names: bool = False
    flush: float = 1.25


class CannotExport(Exception):
    """Raised if telemetry cannot be set up, with one sentence naming the setting or variable."""
