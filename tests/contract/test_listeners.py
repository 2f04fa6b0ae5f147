"""Health, reflection and the operator's listener."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from service import key_for, prepare, serving


async def health(address: str, service: str) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def services(address: str) -> list[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]))
        response = await call.read()
        return sorted(service.name for service in response.list_services_response.service)


@pytest.mark.parametrize("service", ["", "samovar.v1.Session", "grpc.health.v1.Health"])
def test_health_is_served_to_anyone(directory: Path, service: str) -> None:
    """Liveness and readiness need no credential."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        await key_for(directory, "acme")
        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}) as run:
            serving_now = health_pb2.HealthCheckResponse.SERVING
            assert await health(run.address, service) == serving_now

    asyncio.run(story())


def test_health_of_an_unknown_service_is_not_found(directory: Path) -> None:
    """Names that mean nothing are NOT_FOUND."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await health(run.address, "acme")
            assert error.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(story())


def test_reflection_is_on_where_identity_is_none(directory: Path) -> None:
    """On this machine a caller may ask what is served; so may the operator."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            assert "samovar.v1.Session" in await services(run.address)
            operator = f"unix:{directory / 'operator.sock'}"
            assert "grpc.health.v1.Health" in await services(operator)

    asyncio.run(story())


def test_reflection_is_off_where_callers_have_keys(directory: Path) -> None:
    """Elsewhere reflection is a setting, off by default."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}) as run:
            with pytest.raises(grpc.aio.AioRpcError):
                await services(run.address)

    asyncio.run(story())


def test_the_operators_socket_is_its_owners_alone(directory: Path) -> None:
    """Nobody but the operator can open the operator's listener."""

    async def story() -> None:
        async with serving(directory, fake=True):
            mode = (directory / "operator.sock").stat().st_mode
            assert mode & 0o077 == 0 or directory.stat().st_mode & 0o077 == 0

    asyncio.run(story())


def test_a_unix_socket_serves_callers(directory: Path) -> None:
    """`server.listen` may be a unix socket."""

    async def story() -> None:
        listen = {"listen": f"unix:{directory / 'c.sock'}"}
        async with serving(directory, fake=True, server=listen) as run:
            assert (await run.client.ask("Say x")).text == "x"

    asyncio.run(story())
