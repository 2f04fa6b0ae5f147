"""Health, reflection and the operator's listener."""

import asyncio
import socket
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.service import free_port, key_for, prepare, serving
from support.timeouts import BOUND

from samovar.v1 import session_pb2
from samovard.state_lock import CannotStart


async def health(address: str, service: str) -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status


async def services(address: str, key: str = "") -> list[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        metadata = (("authorization", f"Bearer {key}"),) if key else ()
        call = stub.ServerReflectionInfo(iter([request]), metadata=metadata)
        response = await call.read()
        return sorted(service.name for service in response.list_services_response.service)


def test_health_of_an_unknown_service_is_not_found(directory: Path) -> None:
    """Names that mean nothing are NOT_FOUND."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await health(run.address, "acme")
            assert error.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(story())


def test_a_page_in_a_browser_cannot_call_a_service_without_credentials(directory: Path) -> None:
    """HTTP/1.1, all that a browser speaks without TLS, is not served; an origin is refused."""

    def ask(address: str, method: str) -> bytes:
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), BOUND) as page:
            head = f"{method} /samovar.v1.Session/GetSession HTTP/1.1\r\nHost: {address}\r\n"
            page.sendall(
                f"{head}Origin: https://page.example\r\nContent-Type: text/plain\r\n"
                "Content-Length: 5\r\n\r\n".encode()
                + bytes(5)
            )
            return b"".join(iter(lambda: page.recv(65536), b""))

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            for method in ("POST", "OPTIONS", "GET"):
                answer = await asyncio.to_thread(ask, run.address, method)
                assert not answer.startswith(b"HTTP/1.1 200"), answer
                assert b"access-control-allow" not in answer.lower()
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await run.stub.ListSessions(
                    session_pb2.ListSessionsRequest(),
                    metadata=(("origin", "https://page.example"),),
                )
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED

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


def test_the_operators_socket_is_its_owners_alone_and_goes_with_the_service(
    directory: Path,
) -> None:
    """Nobody else can open it, whatever its directory allows; at the end it is gone."""

    async def story() -> None:
        path = directory / "o.sock"
        directory.chmod(0o755)
        async with serving(directory, fake=True, server={"operator_listen": f"unix:{path}"}):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert "samovar.v1.Pool" in await services(f"unix:{path}")
            assert not (directory / "operator.sock").exists()
        assert not path.exists()

    asyncio.run(story())


def test_a_socket_that_nobody_serves_any_more_is_replaced(directory: Path) -> None:
    """A server that was killed leaves its socket behind; the next one starts all the same."""

    async def story() -> None:
        path = directory / "operator.sock"
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(str(path))
        async with serving(directory, fake=True):
            assert "samovar.v1.Pool" in await services(f"unix:{path}")

    asyncio.run(story())


def test_a_socket_without_a_directory_is_told(directory: Path) -> None:
    """The start says what is missing, and makes nothing."""

    async def story() -> None:
        where = {"operator_listen": f"unix:{directory / 'none' / 'o.sock'}"}
        with pytest.raises(CannotStart) as error:
            async with serving(directory, fake=True, server=where):
                raise AssertionError("it started")
        assert "there is no directory for unix:" in str(error.value)
        assert not (directory / "none").exists()

    asyncio.run(story())


def test_a_socket_that_somebody_serves_is_left_to_him(directory: Path) -> None:
    """The start fails with one line that says what to set, and the socket still works."""

    async def story() -> None:
        path = directory / "taken.sock"
        with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as caller:
            other.bind(str(path))
            other.listen()
            for name in ("listen", "operator_listen", "health_listen"):
                with pytest.raises(CannotStart) as error:
                    async with serving(directory, fake=True, server={name: f"unix:{path}"}):
                        raise AssertionError("it started")
                assert f"another program serves unix:{path}" in str(error.value)
                assert f"server.{name}" in str(error.value)
            caller.connect(str(path))

    asyncio.run(story())


def test_the_operators_address_may_be_a_port_for_keys(directory: Path) -> None:
    """On loopback an operator's key opens it, where reflection needs one, too."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        admin = await key_for(directory, "ops", "admin")
        address = f"127.0.0.1:{free_port()}"
        where = {"listen": "127.0.0.1:0", "operator_listen": address}
        auth = {"methods": ["api_key"]}
        async with serving(directory, binary=binary, server=where, auth=auth):
            assert "samovar.v1.Pool" in await services(address, admin)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await services(address)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED

    asyncio.run(story())


def test_a_unix_socket_serves_callers(directory: Path) -> None:
    """`server.listen` may be a unix socket."""

    async def story() -> None:
        listen = {"listen": f"unix:{directory / 'c.sock'}"}
        async with serving(directory, fake=True, server=listen) as run:
            assert (await run.client.ask("Say x")).text == "x"

    asyncio.run(story())
