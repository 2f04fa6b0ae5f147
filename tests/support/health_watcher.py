"""Watchers of a service's health."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.service import Running, raw, simple
from support.timeouts import BOUND

from samovar import errors
from samovar.v1 import session_pb2
from samovard.edge.health import SESSION

STATUS = health_pb2.HealthCheckResponse
SERVING, NOT_SERVING = STATUS.SERVING, STATUS.NOT_SERVING


class Watcher:
    """Collector of each change of a service's health."""

    def __init__(self) -> None:
        self._heard: asyncio.Queue[Any] = asyncio.Queue()

    async def listen(self, call: Any) -> None:
        async for response in call:
            self._heard.put_nowait(response.status)
        self._heard.put_nowait(None)

    async def next(self, within: float = BOUND) -> Any:
        """Return the next status, None at the end of the stream."""
        return await asyncio.wait_for(self._heard.get(), within)

    async def stays(self, seconds: float) -> None:
        """Assert that no status comes for so many seconds."""
        with pytest.raises(TimeoutError):
            await self.next(seconds)


@asynccontextmanager
async def watching(run: Running, service: str = SESSION) -> AsyncIterator[Watcher]:
    async with grpc.aio.insecure_channel(run.address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        watcher = Watcher()
        listening = asyncio.create_task(
            watcher.listen(health_pb2_grpc.HealthStub(channel).Watch(request))
        )
        yield watcher
        listening.cancel()
        await asyncio.wait({listening})


async def cause(run: Running, session: str) -> str:
    """Return the cause with which a new session is refused at once."""
    request = simple("Say x", session_id=session, spec=session_pb2.SessionSpec())
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await raw(run.stub, request, timeout=BOUND)
    return errors.of(error.value).cause
