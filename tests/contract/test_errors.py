"""What a caller is told when something is wrong with a call, over a real channel."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from support.service import Running, raw, serving, simple, until

import samovar
from samovar.v1 import session_pb2 as pb


async def failure(run: Running, request: pb.SendRequest) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await raw(run.stub, request)
    return error.value


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    trailing: Any = error.trailing_metadata()
    status = status_pb2.Status()
    status.ParseFromString(dict(trailing)["grpc-status-details-bin"])
    return status


def detail(error: grpc.aio.AioRpcError, kind: type[Message]) -> Any:
    message = kind()
    (packed,) = (d for d in details(error).details if d.Is(kind.DESCRIPTOR))
    packed.Unpack(message)
    return message


def reason(error: grpc.aio.AioRpcError) -> str:
    return str(detail(error, error_details_pb2.ErrorInfo).reason)


BAD = {
    "empty content": (pb.SendRequest(), "content"),
    "bad session": (simple("x", session_id="No Name"), "session_id"),
    "bad turn": (simple("x", turn_id="not-a-uuid"), "turn_id"),
    "unknown profile": (simple("x", spec=pb.SessionSpec(profile="none")), "spec.profile"),
    "model not allowed": (simple("x", spec=pb.SessionSpec(model="sonnet")), "spec.model"),
    "ask not allowed": (
        simple("x", spec=pb.SessionSpec(permission_policy=pb.PERMISSION_POLICY_ASK)),
        "spec.permission_policy",
    ),
    "8 MiB": (simple("x" * (8 << 20)), ""),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_names_the_field(directory: Path, name: str) -> None:
    """A bad request is INVALID_ARGUMENT, says which field, and leaves nothing behind."""
    request, field = BAD[name]

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            error = await failure(run, request)
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason(error) == "REQUEST_INVALID"
            bad = detail(error, error_details_pb2.BadRequest)
            assert [violation.field for violation in bad.field_violations] == [field]
            assert len(run.service.pool) == 0
            assert not [session async for session in run.client.list_sessions()]

    asyncio.run(story())


def test_an_oversized_message_is_refused_by_grpc_and_nothing_is_lost(directory: Path) -> None:
    """What gRPC refuses has no reason of ours; the same connection goes on."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            error = await failure(run, simple("x" * (9 << 20)))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            trailing: Any = error.trailing_metadata()
            assert "grpc-status-details-bin" not in dict(trailing)
            assert (await run.client.ask("Say on")).text == "on"

    asyncio.run(story())


def test_a_named_session_needs_a_spec(directory: Path) -> None:
    """A mistyped name cannot start a conversation."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            error = await failure(run, simple("x", session_id="typo"))
            assert error.code() is grpc.StatusCode.NOT_FOUND
            assert reason(error) == "SESSION_NOT_FOUND"
            await raw(run.stub, simple("x", session_id="typo", spec=pb.SessionSpec()))
            await raw(run.stub, simple("x", session_id="typo"))

    asyncio.run(story())


def test_a_spec_that_differs_is_refused(directory: Path) -> None:
    """A session keeps what it was made with; unset fields are not compared."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            made = pb.SessionSpec(model="opus", labels={"team": "red"})
            await raw(run.stub, simple("x", session_id="s", spec=made))
            await raw(run.stub, simple("x", session_id="s", spec=pb.SessionSpec(model="opus")))
            other = simple("x", session_id="s", spec=pb.SessionSpec(model="haiku"))
            error = await failure(run, other)
            assert error.code() is grpc.StatusCode.ALREADY_EXISTS
            info = detail(error, error_details_pb2.ErrorInfo)
            assert info.reason == "ID_TAKEN"
            assert dict(info.metadata) == {
                "field": "session_id",
                "differs": "spec.model",
                "model": "opus",
                "askedModel": "haiku",
            }

    asyncio.run(story())


def test_a_busy_session_says_which_turn_runs(directory: Path) -> None:
    """Beyond the turn that may wait, SESSION_BUSY names the running one."""

    async def story() -> None:
        profiles = {"default": {"model": "haiku", "session_queue": 0}}
        async with serving(directory, profiles=profiles) as run:
            from samovard.standin import drip, script

            async with run.client.send(script(drip(500, 0.02))) as turn:
                await anext(turn)
                error = await failure(run, simple("x"))
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                info = detail(error, error_details_pb2.ErrorInfo)
                assert (info.reason, info.metadata["turnId"]) == ("SESSION_BUSY", turn.turn_id)

    asyncio.run(story())


def test_a_refusal_for_want_of_processes_may_be_repeated(directory: Path) -> None:
    """NO_PROCESS comes with RetryInfo, an equal pushback and no `promptWritten`."""

    async def story() -> None:
        from samovard.standin import drip, script

        async with serving(directory, pool={"slots": 1, "queue_limit": 1}) as run:
            async with run.client.send(script(drip(500, 0.02)), session="busy") as turn:
                await anext(turn)
                async with run.client.send("x", session="waits") as waiting:
                    first = asyncio.ensure_future(anext(waiting))
                    await until(lambda: run.service.pool.waiting == 1)
                    error = await failure(run, simple("x"))
                    await run.client.close_session("waits")
                    with pytest.raises(samovar.TurnWithdrawn):
                        await first
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        info = detail(error, error_details_pb2.ErrorInfo)
        assert (info.reason, info.metadata["cause"]) == ("NO_PROCESS", "saturated")
        assert "promptWritten" not in info.metadata
        delay = detail(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds()
        trailing: Any = error.trailing_metadata()
        assert int(dict(trailing)["grpc-retry-pushback-ms"]) == delay >= 100

    asyncio.run(story())


def test_a_full_queue_of_a_tenant_may_be_repeated(directory: Path) -> None:
    """QUEUE_FULL says whose queue is full and how many wait, and comes with RetryInfo."""

    async def story() -> None:
        from samovard.standin import drip, script

        sections: dict[str, Any] = {
            "pool": {"slots": 1},
            "tenants": {"default": {"queue_limit": 1}},
        }
        async with serving(directory, **sections) as run:
            async with (
                run.client.send(script(drip(500, 0.02)), session="busy") as turn,
                run.client.send("waits", session="waits") as waits,
            ):
                await anext(turn)
                waiting = asyncio.ensure_future(anext(waits))
                while not run.service.pool.waiting:
                    await asyncio.sleep(0.01)
                error = await failure(run, simple("x"))
                waiting.cancel()
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert reason(error) == "QUEUE_FULL"
        (violation,) = detail(error, error_details_pb2.QuotaFailure).violations
        assert violation.subject == "tenant:local"
        assert violation.description == "as many turns of the tenant wait as may: 1"
        assert detail(error, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() >= 100

    asyncio.run(story())


def test_without_a_credential_no_turn_runs(directory: Path) -> None:
    """A service without credential says so, and says it is the operator's to mend."""

    async def story() -> None:
        async with serving(directory, fake=True, credentials={"provider": None}) as run:
            error = await failure(run, simple("x"))
            assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            info = detail(error, error_details_pb2.ErrorInfo)
            assert (info.reason, info.metadata["cause"]) == ("MISCONFIGURED", "credential-missing")

    asyncio.run(story())
