"""A row that cannot be read: the service starts, and its tenant can close the session."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import grpc
import pytest
from support.service import Running, prepare, raw, serving, simple

from samovar import errors
from samovar.v1 import session_pb2


async def listed(run: Running) -> set[str]:
    response = await run.stub.ListSessions(session_pb2.ListSessionsRequest())
    return {session.session_id for session in response.sessions}


@pytest.mark.parametrize("column", ["spec", "usage"])
def test_a_session_whose_row_cannot_be_read_can_be_closed(directory: Path, column: str) -> None:
    """Others are listed, its turns are refused, and closed it is free again."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        async with serving(directory, binary=binary) as run:
            for name in ("bad", "good"):
                await run.client.ask("Say one", session=name)
        with contextlib.closing(sqlite3.connect(directory / "samovar.db")) as store:
            store.execute(f"UPDATE session SET {column} = x'7b' WHERE session = 'bad'")
            store.commit()
        async with serving(directory, binary=binary) as run:
            assert await listed(run) == {"good"}
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await raw(run.stub, simple("Say two", session_id="bad"), timeout=30)
            assert errors.of(error.value).reason == "MISCONFIGURED"
            await run.stub.CloseSession(session_pb2.CloseSessionRequest(session_id="bad"))
            assert all(
                counters.sessions >= 0 for counters in run.service.pool.counters.all.values()
            )
            assert (await run.client.ask("Say three", session="bad")).text == "three"
            assert await listed(run) == {"bad", "good"}

    asyncio.run(story())
