"""`CloseSession` over a real channel, of sessions whose directories are large."""

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.service import Running, raw, serving, simple, until
from support.slow_disk import Disk

from samovar.v1 import session_pb2 as pb


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk."""
    return Disk(monkeypatch)


async def code(call: Awaitable[Any]) -> grpc.StatusCode:
    """Return the status of a call."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def session_with(run: Running, file: str) -> Path:
    """Make a session with a file in its directory. Return that directory."""
    before = set((run.directory / "s").iterdir())
    await run.client.ask("Say x", session="s")
    (home,) = (set((run.directory / "s").iterdir()) - before) or [Path()]
    (home / "work" / file).touch()
    return home


def test_a_session_is_closed_before_its_files_are_erased(directory: Path, disk: Disk) -> None:
    """Its name is free and every call says so, however long the erasing takes."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            home = await session_with(run, "large")
            with disk.blocks("unlink", "large"):
                closed = await run.stub.CloseSession(
                    pb.CloseSessionRequest(session_id="s"), timeout=60
                )
                assert closed.session.state == pb.SessionInfo.STATE_CLOSED
                await until(lambda: disk.reached)
                await check_free(run)
                assert list((directory / "s" / "gone").iterdir())
            await until(lambda: not list((directory / "s" / "gone").iterdir()))
            assert not home.exists()

    asyncio.run(story())


def test_a_close_that_its_caller_gives_up_is_done(directory: Path, disk: Disk) -> None:
    """The deadline is the call's, not the close's; a later close waits for it."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            home = await session_with(run, "file")
            request = pb.CloseSessionRequest(session_id="s")
            with disk.blocks("rename", home.name):
                first = run.stub.CloseSession(request, timeout=60)
                await until(lambda: disk.reached)
                first.cancel()
                assert first.cancelled()
                later = run.stub.CloseSession(request, timeout=60)
                got = await run.stub.GetSession(pb.GetSessionRequest(session_id="s"), timeout=60)
                assert got.session.turn_count == 1  # it is there until the close is done
            assert await code(later) is grpc.StatusCode.OK
            await check_free(run)

    asyncio.run(story())


async def check_free(run: Running) -> None:
    """Check that there is no session, whichever way it is looked for, and make a new one."""
    get = run.stub.GetSession(pb.GetSessionRequest(session_id="s"))
    assert await code(get) is grpc.StatusCode.NOT_FOUND
    assert not (await run.stub.ListSessions(pb.ListSessionsRequest())).sessions
    said = await raw(run.stub, simple("Say y", session_id="s", spec=pb.SessionSpec()))
    assert said[0].events[0].turn_started.start_mode == pb.TurnStarted.START_MODE_COLD
