"""An agent that breaks its own directory harms its session and nothing else, on the real CLI."""

import asyncio
import os
import signal
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.service import Running, serving, until

import samovar
from samovard.edge.health import SESSION
from samovard.standin import script, text, tool

BREAK = "sh -c 'cd .. && rm -rf work && ln -s /tmp work'"
SENDS = 9  # one more than open the breaker of all starts


async def status(run: Running) -> int:
    async with grpc.aio.insecure_channel(run.address) as channel:
        request = health_pb2.HealthCheckRequest(service=SESSION)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request)
        return int(answer.status)


def test_a_session_that_broke_its_directory_stops_nobody_else(directory: Path) -> None:
    """Each of its turns is refused, new sessions start, and health goes on serving."""

    async def story() -> None:
        async with serving(directory) as run:
            broken: samovar.SendOptions = {"session": "broken", "profile": "tools"}
            prompt = script(tool("Bash", {"command": BREAK}), text("done"))
            answer = await run.client.ask(prompt, **broken)
            os.kill(answer.started.pid, signal.SIGKILL)
            await until(lambda: len(run.service.pool) == 0)
            for _ in range(SENDS):
                with pytest.raises(samovar.Misconfigured) as refused:
                    await run.client.ask("Say x", **broken)
                assert refused.value.cause == "directory-refused"
            assert run.service.maintenance.readiness.obstacles() == ()
            assert await status(run) == health_pb2.HealthCheckResponse.SERVING
            assert (await run.client.ask("Say new", session="new", profile="tools")).text == "new"

    asyncio.run(story())
