"""What is exported and where to; the SDK is imported only if anything is.

Knows nothing of settings or of the SDK.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from samovard.telemetry.recorder import NOBODY, Recorder


@dataclass(frozen=True, slots=True)
class Export:
    """Where to: an OTLP endpoint, empty for none; `protocol` is `grpc` or `http/protobuf`.

    `prometheus` is the address on which metrics can be fetched, empty for none;
    `tools` are those that have a label of their own; `flush` is how many seconds the end
    waits at most for the last export.
    """

    server_id: str
    version: str
    endpoint: str = ""
    protocol: str = "grpc"
    sample_ratio: float = 1.0
    prometheus: str = ""
    tools: frozenset[str] = frozenset()
    flush: float = 1.25


class CannotExport(Exception):
    """The address for Prometheus is taken or cannot be had."""


@asynccontextmanager
async def recording(export: Export) -> AsyncIterator[Recorder]:
    """Gives what records; at the end it waits, not long, until all of it is exported."""
    if not export.endpoint and not export.prometheus:
        yield NOBODY
        return
    from samovard.telemetry.providers import Providers

    async with Providers(export) as providers:
        yield providers
