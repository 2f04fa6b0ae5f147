"""The health service, `grpc.health.v1`.

`""` and `grpc.health.v1.Health` report that the event loop answers; `samovar.v1.Session` that a
turn sent now could be served. Knows nothing of the reasons.

The servicer of grpcio-health-checking 1.85 holds a lock while it writes to a watcher. Any caller
may watch, and one who gives its stream no window would keep every status as it is, and a
service that goes away from going (`tests/edge/test_health.py`).
"""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1 import health_pb2_grpc

from samovard.edge.writes import write

SESSION = "samovar.v1.Session"
ALIVE = ("", "grpc.health.v1.Health")
MAX_WATCHERS = 1000  # one for each connection that may exist

Context = grpc.aio.ServicerContext[Any, Any]
_SERVING = pb.HealthCheckResponse.SERVING
_NOT_SERVING = pb.HealthCheckResponse.NOT_SERVING
_UNKNOWN = pb.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # it has no types
    """The health of the service, the same on every listener."""

    def __init__(self) -> None:
        self._statuses = dict.fromkeys(ALIVE, _SERVING) | {SESSION: _NOT_SERVING}
        self._changed = asyncio.Event()  # replaced at each change
        self._watchers = 0
        self._leaving = False
        self._closed = False

    def __repr__(self) -> str:
        word = pb.HealthCheckResponse.ServingStatus.Name(self._statuses[SESSION])
        return f"<Health {word} watchers={self._watchers}>"

    @property
    def serves(self) -> bool:
        """True if the service reports that turns can be served."""
        return bool(self._statuses[SESSION] == _SERVING)

    def serving(self, *, yes: bool) -> None:
        """Set whether turns can be served; ignored once the server is shutting down."""
        status = _SERVING if yes and not self._leaving else _NOT_SERVING
        if status != self._statuses[SESSION]:
            self._statuses[SESSION] = status
            self._tell()

    def leaving(self) -> None:
        """Report from now on that this server takes no more turns."""
        self._leaving = True
        self.serving(yes=False)

    def close(self) -> None:
        """End the watchers' streams, which would otherwise delay the server's stop."""
        self._closed = True
        self._tell()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(
        self, request: pb.HealthCheckRequest, context: Context
    ) -> pb.HealthCheckResponse:
        """Return a status; an unknown name is NOT_FOUND."""
        status = self._statuses.get(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return pb.HealthCheckResponse(status=status)

    async def List(self, request: pb.HealthListRequest, context: Context) -> pb.HealthListResponse:
        """Return every status."""
        statuses = self._statuses.items()
        told = {name: pb.HealthCheckResponse(status=status) for name, status in statuses}
        return pb.HealthListResponse(statuses=told)

    async def Watch(self, request: pb.HealthCheckRequest, context: Context) -> None:
        """Stream a status at once and after each change.

        A slow watcher misses intermediate ones.
        """
        if self._watchers >= MAX_WATCHERS:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watchers")
        self._watchers += 1
        try:
            await self._watch(request.service, context)
        finally:
            self._watchers -= 1

    async def _watch(self, service: str, context: Context) -> None:
        last = None
        # Also once closed: a shutdown of an idle service takes less time than one write.
        while not self._closed or self._statuses.get(service, _UNKNOWN) != last:
            # Before the status: a change during the write is then not missed.
            changed = self._changed
            status = self._statuses.get(service, _UNKNOWN)
            if status != last:
                await write(context, pb.HealthCheckResponse(status=status))
            last = status
            if not self._closed:
                await changed.wait()
