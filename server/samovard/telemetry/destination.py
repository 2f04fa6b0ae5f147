"""What is exported, and where to. Knows nothing of settings or of the SDK."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Export:
    """Where to: an OTLP endpoint, empty for none; `protocol` is `grpc` or `http/protobuf`.

    `prometheus` is the address on which metrics can be fetched, empty for none;
    `tools` and `tenants` are those that labels have by name; with `callers` spans of calls
    say who called; with `old_names` what was renamed is
    exported under its old name, too; `flush` is how many seconds the end waits at most for
    the last export.
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
    """Telemetry cannot be set up: one sentence that names the setting or the variable."""
