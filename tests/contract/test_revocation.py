"""A credential that is no longer valid acts on what is under way, on the real CLI."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from support.operator_client import operator
from support.service import Running, key_for, prepare, serving, simple, until

from samovar import errors
from samovar.v1 import pool_pb2
from samovar.v1 import session_pb2 as pb
from samovard import maintenance
from samovard.settings import given
from samovard.standin import drip, script
from samovard.store.keys import KeyStore
from samovard.store.sqlite.database import Database
from samovard.store.tenants import TenantStore

LONG = script(drip(5000, 0.02))
CONTINUE = pb.DISCONNECT_POLICY_CONTINUE
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # its stubs lack it


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance, "REVOKE_EVERY", 0.05)


def by(key: str) -> dict[str, Any]:
    return {"metadata": (("authorization", f"Bearer {key}"),)}


@asynccontextmanager
async def store(directory: Path) -> AsyncIterator[Database]:
    """Open the store of a running service once more, as `samovard keys` does."""
    async with Database(given({"state": {"directory": directory}}).url) as database:
        yield database


async def revoke(directory: Path, key: str) -> None:
    async with store(directory) as database:
        (found,) = (k for k in await KeyStore(database).list() if k.id == key.split("_")[1])
        assert await KeyStore(database).revoke(found.tenant, found.id, time.time()) == 1


async def put(directory: Path, tenant: str, *, enabled: bool) -> None:
    async with store(directory) as database:
        await TenantStore(database).put(tenant, time.time(), enabled=enabled)


async def sent(run: Running, key: str, session: str, turn_id: str = "", text: str = LONG) -> Any:
    """Return the stream of a turn that runs whether it is followed or not."""
    spec = pb.SessionSpec()
    request = simple(text, session_id=session, spec=spec, on_disconnect=CONTINUE, turn_id=turn_id)
    call = run.stub.Send(request, **by(key))
    assert (await call.read()).events
    return call


async def failure(call: Any) -> errors.SamovarError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        while await call.read() is not EOF:
            pass
    return errors.of(error.value)


def test_a_revoked_key_stops_its_turns_and_streams_and_no_other_keys(directory: Path) -> None:
    """`Send`, `Attach` and `Watch` are told; who follows its turn by another key sees it end."""

    async def story() -> None:
        binary = await prepare(directory)
        old, new = [await key_for(directory, "acme") for _ in range(2)]
        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}) as run:
            mine, other = (str(uuid.uuid4()) for _ in range(2))
            of_old, of_new = await asyncio.gather(
                sent(run, old, "a", mine), sent(run, new, "b", other)
            )
            follow = pb.AttachRequest(session_id="b", turn_id=other)
            attached = run.stub.Attach(follow, **by(old))
            witness = run.stub.Attach(pb.AttachRequest(session_id="a", turn_id=mine), **by(new))
            async with grpc.aio.insecure_channel(run.address) as channel:
                health = health_pb2_grpc.HealthStub(channel)
                watch = health.Watch(health_pb2.HealthCheckRequest(), **by(old))
                for stream in (attached, witness, watch):
                    await stream.read()
                await revoke(directory, old)
                found = [await failure(stream) for stream in (of_old, attached, watch)]
            assert [error.reason for error in found] == ["CREDENTIAL_INVALID"] * 3
            assert [error.prompt_written for error in found] == [True, True, False]
            events: list[pb.Event] = []
            while (response := await witness.read()) is not EOF:
                events += response.events
            assert "credential-revoked" in [event.notice.code for event in events]
            assert events[-1].turn_finished.outcome == pb.TurnFinished.OUTCOME_INTERRUPTED
            assert (await of_new.read()).events
            stop = pb.InterruptRequest(session_id="b", turn_id=other)
            assert (await run.stub.Interrupt(stop, **by(new))).was_running

    asyncio.run(story())


def test_a_waiting_turn_of_a_revoked_key_is_withdrawn(directory: Path) -> None:
    """Nothing of it is given to an agent."""

    async def story() -> None:
        binary = await prepare(directory)
        old, new = [await key_for(directory, "acme") for _ in range(2)]
        auth, pool = {"methods": ["api_key"]}, {"slots": 1}
        async with serving(directory, binary=binary, auth=auth, pool=pool) as run:
            await sent(run, new, "a")
            request = simple("Say x", session_id="b", spec=pb.SessionSpec())
            waiting = run.stub.Send(request, **by(old))
            await until(lambda: run.service.pool.waiting == 1)
            await revoke(directory, old)
            error = await failure(waiting)
            assert (error.reason, error.prompt_written) == ("CREDENTIAL_INVALID", False)
            assert run.service.pool.waiting == 0
            assert run.service.sessions.running == 1

    asyncio.run(story())


def test_a_revoked_operator_watches_no_longer(directory: Path) -> None:
    """The stream of snapshots ends on the operator's socket as well."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        admin = await key_for(directory, "ops", "admin")
        auth = {"methods": ["api_key"]}
        async with serving(directory, binary=binary, auth=auth), operator(directory) as stub:
            watch = stub.WatchPools(pool_pb2.WatchPoolsRequest(), **by(admin))
            await watch.read()
            await revoke(directory, admin)
            assert (await failure(watch)).reason == "CREDENTIAL_INVALID"

    asyncio.run(story())


def test_a_disabled_tenant_is_stopped_until_it_is_enabled(directory: Path) -> None:
    """Its turn and its calls end, new ones are refused; then its session goes on."""

    async def story() -> None:
        async with serving(directory) as run:
            running = await sent(run, "", "a")
            await put(directory, "local", enabled=False)
            error = await failure(running)
            assert (error.reason, error.prompt_written) == ("TENANT_DISABLED", True)
            await until(lambda: not run.service.sessions.running)
            refused = run.stub.GetSession(pb.GetSessionRequest(session_id="a"))
            with pytest.raises(grpc.aio.AioRpcError) as again:
                await refused
            assert again.value.code() is grpc.StatusCode.PERMISSION_DENIED
            await put(directory, "local", enabled=True)
            await until(lambda: "disabled=0" in repr(run.service.maintenance.revocation))
            assert (await run.client.ask("Say on", session="a")).text == "on"

    asyncio.run(story())
