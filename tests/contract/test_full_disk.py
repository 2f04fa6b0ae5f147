"""What holds on a full disk, with the store, the sessions and the log on it."""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.program import config_of, environ, serve
from support.service import prepare, until
from support.small_disk import small_disk
from support.timeouts import BOUND

import samovar
from samovar.v1 import session_pb2, session_pb2_grpc
from samovard.edge.health import SESSION

SERVING = health_pb2.HealthCheckResponse.SERVING


def fill(disk: Path) -> None:
    """Leave nothing free, to the last block."""
    file = os.open(disk / "full", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    size = 1 << 20
    try:
        while size:
            try:
                os.write(file, b"\0" * size)
            except OSError:
                size //= 2
    finally:
        os.close(file)


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


class Served:
    """A service as a process of its own, whose disk is small and has its log."""

    def __init__(self, disk: Path, binary: Path) -> None:
        self.disk = disk
        # A TCP port could be taken, by a client of its own too, while no server has it.
        self.address = f"unix:{disk.parent / 'socket'}"
        key = disk.parent / "key"
        key.touch(mode=0o600)
        self.config = config_of(disk.parent, binary)
        text = self.config.read_text().replace("127.0.0.1:0", self.address)
        text = text.replace(f'directory = "{disk.parent}"', f'directory = "{disk}"')
        self.config.write_text(text)

    @asynccontextmanager
    async def running(self, kill: bool = False) -> AsyncIterator["Calls"]:
        with open(self.disk / "log", "ab") as log:
            child = subprocess.Popen(
                serve(self.config),
                env=environ(SAMOVAR_AUTH__METHODS='["none"]'),
                stderr=log,
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            )
        try:
            async with (
                grpc.aio.insecure_channel(self.address) as channel,
                samovar.AsyncClient(self.address, deadline=BOUND) as client,
            ):
                ready = asyncio.ensure_future(channel.channel_ready())
                await until(lambda: ready.done() or child.poll() is not None, 60.0)
                assert ready.done(), (self.disk / "log").read_text()
                yield Calls(channel, client)
            if not kill:
                child.terminate()
                code = await asyncio.to_thread(child.wait, 60.0)
                assert code == 0, (self.disk / "log").read_text()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()


class Calls:
    def __init__(self, channel: Any, client: samovar.AsyncClient) -> None:
        self.client = client
        self.stub = session_pb2_grpc.SessionStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)

    async def serves(self) -> bool:
        request = health_pb2.HealthCheckRequest(service=SESSION)
        return bool((await self._health.Check(request)).status == SERVING)

    async def health(self, serves: bool, within: float) -> None:
        async with asyncio.timeout(within):
            while await self.serves() != serves:
                await asyncio.sleep(0.05)

    async def sessions(self) -> set[str]:
        listed = await self.stub.ListSessions(session_pb2.ListSessionsRequest())
        return {session.session_id for session in listed.sessions}


@contextmanager
def served(directory: Path) -> Iterator[Served]:
    binary = asyncio.run(prepare(directory, fake=True))
    disk = directory / "d"
    with small_disk(disk, "16M"):
        (disk / "self-test.json").write_bytes((directory / "self-test.json").read_bytes())
        yield Served(disk, binary)


def test_on_a_full_disk_turns_end_and_sessions_can_be_closed(directory: Path) -> None:
    """The turn that runs is told how it ended, health says within ten seconds that the service
    is not ready, what is stored can be read, and closing a session gives its space back, with
    which everything goes on."""

    async def story(service: Served) -> None:
        gate = directory / "gate"
        async with service.running() as calls:
            await calls.health(serves=True, within=30.0)
            ballast = "x" * (1 << 20)
            await calls.client.ask("Say large", session="large")
            for work in (service.disk / "s").glob("[0-9a-f]*/work"):
                (work / "ballast").write_text(ballast)
            busy = asyncio.create_task(
                calls.client.ask(fake(v.gate(gate), v.text("done")), session="busy")
            )
            await _runs(calls, "busy")
            fill(service.disk)
            gate.touch()
            assert (await busy).text == "done"
            await calls.health(serves=False, within=10.0)
            fill(service.disk)  # what the store gave up is not others' to take
            assert await calls.sessions() == {"large", "busy"}
            found = await calls.stub.GetSession(session_pb2.GetSessionRequest(session_id="busy"))
            assert found.session.turn_count == 1
            await calls.stub.CloseSession(session_pb2.CloseSessionRequest(session_id="large"))
            assert await calls.sessions() == {"busy"}
            await until(lambda: free(service.disk) >= len(ballast) // 2)
            (service.disk / "full").unlink()
            await calls.health(serves=True, within=30.0)
            assert (await calls.client.ask("Say back", session="new")).text == "back"

    with served(directory) as service:
        asyncio.run(story(service))


async def _runs(calls: Calls, session: str) -> None:
    request = session_pb2.GetSessionRequest(session_id=session)
    async with asyncio.timeout(30.0):
        while True:
            with contextlib.suppress(grpc.aio.AioRpcError):
                found = await calls.stub.GetSession(request)
                if found.session.state == session_pb2.SessionInfo.STATE_RUNNING:
                    return
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kill", [False, True], ids=["ended", "killed"])
def test_on_a_full_disk_the_service_starts(directory: Path, kill: bool) -> None:
    """After an end in order and after a kill; sessions are listed and can be closed."""

    async def story(service: Served) -> None:
        async with service.running(kill=kill) as calls:
            await calls.health(serves=True, within=30.0)
            for name in ("a", "b"):
                await calls.client.ask("Say one", session=name)
            await until(lambda: (service.disk / "samovar.db-reserve").exists())
            fill(service.disk)
        fill(service.disk)
        async with service.running(kill=kill) as calls:
            assert await calls.sessions() == {"a", "b"}
            assert not await calls.serves()
            await calls.stub.CloseSession(session_pb2.CloseSessionRequest(session_id="a"))
            assert await calls.sessions() == {"b"}
            (service.disk / "full").unlink()
            await calls.health(serves=True, within=30.0)
            assert (await calls.client.ask("Say back", session="b")).text == "back"

    with served(directory) as service:
        asyncio.run(story(service))
