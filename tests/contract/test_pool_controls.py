"""What `pool.proto` promises of pauses, and of other tenants' sessions, over a real channel."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.operator_client import pools, reason, told
from support.service import Running, until

import samovar
from samovar.v1 import pool_pb2 as pb
from samovard.core.records import SessionKey


def test_turns_of_a_paused_tenant_wait_until_it_is_resumed(directory: Path) -> None:
    """On the real CLI; the list says so. Twice is once."""

    async def story(run: Running, stub: Any) -> None:
        await run.client.ask("Say x")
        for _ in range(2):
            await stub.PausePool(pb.PausePoolRequest(tenant_id="local"))
        assert [pool.paused for pool in await pools(stub)] == [True]
        asking = asyncio.ensure_future(run.client.ask("Say y"))
        await until(lambda: run.service.pool.waiting)
        for _ in range(2):
            await stub.ResumePool(pb.ResumePoolRequest(tenant_id="local"))
        assert (await asking).text == "y"
        assert [pool.paused for pool in await pools(stub)] == [False]

    told(directory, story, fake=False)


def test_a_session_of_a_tenant_is_interrupted_and_closed(directory: Path) -> None:
    """Each once; the tenant sees an interrupted turn, and then that there is no session."""

    async def story(run: Running, stub: Any) -> None:
        names = {"tenant_id": "local", "session_id": "default"}
        async with run.client.send(fake(v.text("a"), v.hang())) as turn:
            begun = await anext(turn)
            assert isinstance(begun, samovar.TurnStarted)
            answer = await stub.InterruptSession(pb.InterruptSessionRequest(**names))
            assert answer.turn_id == begun.turn_id
            *_, last = [event async for event in turn]
            assert isinstance(last, samovar.TurnFinished)
            assert last.outcome is samovar.Outcome.INTERRUPTED
        answer = await stub.InterruptSession(pb.InterruptSessionRequest(**names))
        assert answer.turn_id == ""
        closed = [
            await stub.CloseTenantSession(pb.CloseTenantSessionRequest(**names)) for _ in "12"
        ]
        assert [answer.closed for answer in closed] == [True, False]
        assert [session async for session in run.client.list_sessions()] == []
        for call, request in (
            (stub.InterruptSession, pb.InterruptSessionRequest(**names)),
            (stub.UnblockSession, pb.UnblockSessionRequest(**names)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await call(request)
            assert reason(error.value)[0] == "SESSION_NOT_FOUND"

    told(directory, story)


def test_a_blocked_session_is_unblocked(directory: Path) -> None:
    """Its next turn runs."""

    async def story(run: Running, stub: Any) -> None:
        with pytest.raises(samovar.Internal):
            await run.client.ask(fake(v.wrong_session_id(), v.text("x")))
        with pytest.raises(samovar.Misconfigured):
            await run.client.ask("Say x")
        request = pb.UnblockSessionRequest(tenant_id="local", session_id="default")
        assert (await stub.UnblockSession(request)).was_blocked
        assert not (await stub.UnblockSession(request)).was_blocked
        assert (await run.client.ask("Say x")).text == "x"
        record = await run.service.sessions.get(SessionKey("local", "default"))
        assert not record.record.blocked

    told(directory, story)


@pytest.mark.parametrize("name", ["InterruptSession", "CloseTenantSession", "UnblockSession"])
def test_a_tenant_and_a_session_are_required(directory: Path, name: str) -> None:
    """Both violations are told."""

    async def story(_: Running, stub: Any) -> None:
        for fields in ({}, {"tenant_id": "No Name", "session_id": "No Name"}):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await getattr(stub, name)(getattr(pb, f"{name}Request")(**fields))
            assert reason(error.value)[0] == "REQUEST_INVALID"
            assert "tenant_id" in str(error.value.details())

    told(directory, story)
