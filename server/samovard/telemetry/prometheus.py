"""Metrics where Prometheus fetches them: plain HTTP, on a thread of its own.

Knows nothing of what is measured.
"""

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, start_http_server

from samovard.telemetry.export import CannotExport


class Prometheus:
    """Listens on `host:port`; raises `CannotExport` if it cannot. `reader` feeds it."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        self.reader = PrometheusMetricReader(
            disable_target_info=False, scope_info_enabled=False, registry=registry
        )
        try:
            self._server, self._thread = start_http_server(
                int(port), host.strip("[]"), registry=registry
            )
        except OSError as error:
            raise CannotExport(
                f"telemetry.prometheus_listen: cannot listen on {address}: {error.strerror}"
            ) from error
        self.port = self._server.server_port

    def close(self) -> None:
        """Listens no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
