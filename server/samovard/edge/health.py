"""Health as `grpc.health.v1` tells it.

`""` and `grpc.health.v1.Health` say that the event loop answers; `samovar.v1.Session`
that a turn sent now could be served. Knows nothing of why.
"""

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio  # type: ignore[attr-defined]  # its stubs lack it

SESSION = "samovar.v1.Session"
ALIVE = ("", "grpc.health.v1.Health")


class Health:
    """What the service says of its health, on every listener alike."""

    def __init__(self) -> None:
        self.servicer = aio.HealthServicer()

    async def alive(self) -> None:
        """Says that the loop answers."""
        for name in ALIVE:
            await self.servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def serving(self, *, yes: bool) -> None:
        """Says whether turns can be served."""
        status = health_pb2.HealthCheckResponse
        await self.servicer.set(SESSION, status.SERVING if yes else status.NOT_SERVING)

    async def leaving(self) -> None:
        """Says, for good, that this server takes no more turns."""
        await self.serving(yes=False)
