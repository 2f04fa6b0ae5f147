"""Envoy's configuration: taken by Envoy, and what a call through it meets."""

import asyncio
import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import jwt
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec
from fake_claude.verbs import drip, fake
from support.optional_tools import passes, tool
from support.service import OPEN, key_for, prepare, serving
from support.timeouts import BOUND

import samovar
from samovard.app import Service, running
from samovard.settings import Settings
from samovard.store import key_file
from samovard.store.keys import KeyStore
from samovard.store.sqlite.database import Database

ENVOY = Path(__file__).parents[2] / "deploy" / "envoy"
LOCAL = "127.0.0.1"


def config() -> Any:
    return yaml.safe_load((ENVOY / "envoy.yaml").read_text())


def with_tokens() -> Any:
    """Gives the configuration with both pieces of `jwt.yaml` where they belong."""
    whole, pieces = config(), yaml.safe_load((ENVOY / "jwt.yaml").read_text())
    manager = manager_of(whole)
    names = [found["name"] for found in manager["http_filters"]]
    manager["http_filters"].insert(
        names.index("envoy.filters.http.header_mutation") + 1, pieces["filter"]
    )
    (host,) = manager["route_config"]["virtual_hosts"]
    host["routes"].insert(0, pieces["route"])
    return whole


def manager_of(whole: Any) -> Any:
    (listener,) = whole["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][-1]["typed_config"]


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        taken = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in taken:
            one.bind((LOCAL, 0))
        return [one.getsockname()[1] for one in taken]


def placed(
    whole: Any, directory: Path, upstreams: list[int], probes: list[int]
) -> tuple[Path, int, int]:
    """Writes a configuration for this machine: its file, its port and its administrator's."""
    port, admin = free_ports(2)
    descriptors = directory / "samovar.binpb"
    passes(ENVOY / "descriptors.sh", sys.executable, descriptors)
    (listener,) = whole["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": LOCAL, "port_value": port}
    whole["admin"]["address"]["socket_address"]["port_value"] = admin
    (cluster,) = whole["static_resources"]["clusters"]
    (endpoints,) = cluster["load_assignment"]["endpoints"]
    endpoints["lb_endpoints"] = [
        {
            "endpoint": {
                "address": {"socket_address": {"address": LOCAL, "port_value": upstream}},
                "health_check_config": {"port_value": probed},
            }
        }
        for upstream, probed in zip(upstreams, probes, strict=True)
    ]
    file = directory / "envoy.yaml"
    file.write_text(yaml.safe_dump(whole).replace("/etc/envoy", str(directory)))
    return file, port, admin


@pytest.fixture
def signer(directory: Path) -> ec.EllipticCurvePrivateKey:
    """The key of an issuer; its public half is where Envoy looks for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    numbers = key.public_key().public_numbers()
    x, y = (
        base64.urlsafe_b64encode(number.to_bytes(32, "big")).rstrip(b"=").decode()
        for number in (numbers.x, numbers.y)
    )
    public = {"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": x, "y": y}
    (directory / "jwks.json").write_text(json.dumps({"keys": [public]}))
    return key


@pytest.fixture(params=[config, with_tokens], ids=["keys", "tokens"])
def whole(request: pytest.FixtureRequest) -> Any:
    return request.param()


def test_envoy_takes_it(whole: Any, directory: Path, signer: object) -> None:
    """Envoy itself finds no fault, with and without the pieces for tokens."""
    file, _, _ = placed(whole, directory, [1], [1])
    assert "OK" in passes(tool("envoy"), "--mode", "validate", "-c", file)


def test_nothing_ends_a_stream_but_a_dead_peer(whole: Any) -> None:
    """No time-out on routes, streams or idling; pings on both sides instead."""
    manager = manager_of(whole)
    assert manager["stream_idle_timeout"] == "0s"
    pings = {"interval": "20s", "timeout": "10s"}
    assert manager["http2_protocol_options"]["connection_keepalive"] == pings
    (host,) = manager["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        assert route["route"]["timeout"] == "0s"
        if route["match"]["prefix"].startswith("/samovar"):
            assert route["route"]["max_stream_duration"] == {"grpc_timeout_header_max": "0s"}
    (cluster,) = whole["static_resources"]["clusters"]
    options = cluster["typed_extension_protocol_options"]
    (upstream,) = options.values()
    spoken = upstream["explicit_http_config"]["http2_protocol_options"]
    assert spoken["connection_keepalive"] == pings


def test_connections_without_a_call_are_bounded(whole: Any) -> None:
    """They end after a minute, and there are so many at most; servers see a few of Envoy's."""
    (listener,) = whole["static_resources"]["listeners"]
    bound = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert bound["max_connections"] == 10_000
    assert manager_of(whole)["common_http_protocol_options"]["idle_timeout"] == "60s"


def test_calls_are_spread_by_who_calls_and_by_session(whole: Any) -> None:
    """Each route of sessions hashes two headers, on a ring that is fine enough."""
    (host,) = manager_of(whole)["route_config"]["virtual_hosts"]
    for route in host["routes"]:
        if route["match"]["prefix"].startswith("/samovar"):
            policies = route["route"]["hash_policy"]
            names = [policy["header"]["header_name"] for policy in policies]
            assert names[0] in ("authorization", "x-samovar-tenant")
            assert names[1:] == ["session-id"]
    (cluster,) = whole["static_resources"]["clusters"]
    assert cluster["lb_policy"] == "RING_HASH"
    assert cluster["ring_hash_lb_config"] == {"minimum_ring_size": 2048}


def test_a_server_that_serves_nothing_gets_nothing(whole: Any) -> None:
    """Health is asked by name each second, also without traffic, and one answer decides."""
    (cluster,) = whole["static_resources"]["clusters"]
    (check,) = cluster["health_checks"]
    assert check["grpc_health_check"] == {"service_name": "samovar.v1.Session"}
    assert (check["interval"], check["no_traffic_interval"]) == ("1s", "1s")
    assert (check["unhealthy_threshold"], check["healthy_threshold"]) == (1, 1)
    assert cluster["common_lb_config"]["healthy_panic_threshold"] == {"value": 0}


def test_only_what_reached_no_server_is_sent_again(whole: Any) -> None:
    """A turn that may have begun is never repeated by the proxy."""
    (host,) = manager_of(whole)["route_config"]["virtual_hosts"]
    policy = host["retry_policy"]
    assert policy["retry_on"] == "connect-failure,refused-stream,reset-before-request"
    assert policy["num_retries"] == 3
    (predicate,) = policy["retry_host_predicate"]
    assert predicate["name"] == "envoy.retry_host_predicates.previous_hosts"
    assert all("retry_policy" not in route["route"] for route in host["routes"])


@dataclass(frozen=True)
class Proxy:
    """A running Envoy: where callers reach it, and its administrator."""

    address: str
    admin: str

    async def healthy(self) -> int:
        """Gives how many servers it sends calls to.

        Not how many answer: what changes within a second of another change waits so long.
        """
        try:
            async with aiohttp.ClientSession() as http, http.get(self.admin) as answer:
                stats = json.loads(await answer.text())["stats"]
        except aiohttp.ClientError:
            return 0
        return sum(stat["value"] for stat in stats if "value" in stat)

    async def until_healthy(self, count: int) -> None:
        """Waits until it sends calls to so many."""
        async with asyncio.timeout(BOUND):
            while await self.healthy() != count:
                await asyncio.sleep(0.05)


@asynccontextmanager
async def proxy(
    whole: Any, directory: Path, upstreams: list[int], probes: list[int] | None = None
) -> AsyncIterator[Proxy]:
    """Runs Envoy, and waits until it knows that its servers are healthy."""
    binary = tool("envoy")
    file, port, admin = placed(whole, directory, upstreams, probes or upstreams)
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    with subprocess.Popen([binary, "-c", file, *options]) as child:
        try:
            found = Proxy(
                f"{LOCAL}:{port}",
                f"http://{LOCAL}:{admin}/stats?format=json&filter=membership_healthy",
            )
            await found.until_healthy(len(upstreams))
            yield found
        finally:
            child.terminate()
            child.wait(BOUND)


async def same_keys(directory: Path, other: Path, tenant: str) -> str:
    """Makes a key that two servers know."""
    key = await key_for(directory, tenant)
    (other / "pepper").write_bytes((directory / "pepper").read_bytes())
    async with Database(f"sqlite:///{directory / 'samovar.db'}") as database:
        lines = key_file.text(await KeyStore(database).list())
    (other / "keys").write_text(lines)
    async with Database(f"sqlite:///{other / 'samovar.db'}") as database:
        await KeyStore(database).take(key_file.read(other / "keys"))
    return key


def test_sessions_stay_with_their_server(directory: Path) -> None:
    """Sessions fall to both servers and are found again; one that goes away gets no new ones."""
    tool("envoy")

    async def story() -> None:
        async with AsyncExitStack() as stack:
            first, second, key = await two_servers(stack, directory)
            ports = [int(server.address.rpartition(":")[2]) for server in (first, second)]
            probes = [int(server.probes.rpartition(":")[2]) for server in (first, second)]
            envoy = await stack.enter_async_context(proxy(config(), directory, ports, probes))
            client = await stack.enter_async_context(
                samovar.AsyncClient(envoy.address, api_key=key, deadline=BOUND)
            )
            names = [f"s{number}" for number in range(8)]
            for name in names:
                await client.ask("Say x", session=name)
            again = [await client.ask("Say x", session=name) for name in names]
            assert {answer.started.start_mode.name for answer in again} == {"WARM"}
            shares = [len(server.pool) for server in (first, second)]
            assert sum(shares) == 8
            assert all(shares), shares

            lines = await as_json(envoy.address, key, "s0")
            assert len(lines) > 1
            assert "START_MODE_WARM" in lines[0]

            first.maintenance.leaving()
            await envoy.until_healthy(1)
            # Envoy's main thread knows it by now, the one that chooses once this is through.
            await client.ask("Say x", session=names[0])
            for name in names[:4]:
                await client.ask("Say x", session=f"new-{name}")
            assert len(first.pool) == shares[0]

    asyncio.run(story())


def test_what_a_server_says_of_a_call_comes_through(directory: Path) -> None:
    """A refusal keeps its status and its details, for gRPC and for JSON."""
    tool("envoy")

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}) as run:
            port, probed = (int(at.rpartition(":")[2]) for at in (run.address, run.service.probes))
            async with proxy(config(), directory, [port], [probed]) as envoy:
                async with samovar.AsyncClient(envoy.address, api_key="samovar_x_y") as stranger:
                    with pytest.raises(samovar.SamovarError) as caught:
                        await stranger.ask("Say x")
                assert caught.value.reason == "CREDENTIAL_INVALID"
                said = await as_json(envoy.address, "samovar_x_y", "s", status=401)
                assert "CREDENTIAL_INVALID" in "".join(said)

    asyncio.run(story())


def test_the_pages_example_works_on_a_fresh_service(directory: Path) -> None:
    """The command by curl as it stands, but for the address: it makes its session."""
    tool("envoy")
    curl = tool("curl", "the machine's packages have it")
    page = (ENVOY.parents[1] / "docs" / "deploy.md").read_text()
    found = re.search(r"^\$ (curl .*?[^\\])\n", page, re.MULTILINE | re.DOTALL)
    assert found

    async def story() -> list[str]:
        binary = await prepare(directory, fake=True)
        key = await key_for(directory, "acme")
        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}) as run:
            port, probed = (int(at.rpartition(":")[2]) for at in (run.address, run.service.probes))
            async with proxy(config(), directory, [port], [probed]) as envoy:
                command = found[1].replace("https://samovar.example", f"http://{envoy.address}")
                path = f"{Path(curl).parent}:{os.defpath}"
                said = await asyncio.to_thread(
                    passes, "sh", "-c", f"{command} -sS", PATH=path, SAMOVAR_API_KEY=key
                )
                return said.splitlines()

    last = json.loads(asyncio.run(story())[-1])
    assert last["events"][-1]["turnFinished"]["result"] == "hello"


async def two_servers(stack: AsyncExitStack, directory: Path) -> tuple[Service, Service, str]:
    """Runs two servers that know one key."""
    first, second = directory / "1", directory / "2"
    for place in (first, second):
        place.mkdir()
    key = await same_keys(first, second, "acme")
    servers = []
    for place in (first, second):
        secret = place / "secret"
        secret.touch(mode=0o600)
        secret.write_text("sk-test")
        values = {
            "server": {"listen": f"{LOCAL}:0"},
            "state": {"directory": place},
            "agent": {"cli": await prepare(place, fake=True)},
            "isolation": OPEN,
            "auth": {"methods": ["api_key"]},
            "credentials": {"provider": "file", "path": secret},
            "pool": {"slots": 16},
        }
        settings = Settings.model_validate(values)
        servers.append(await stack.enter_async_context(running(settings)))
    return servers[0], servers[1], key


async def as_json(target: str, key: str, session: str, status: int = 200) -> list[str]:
    """Calls `Send` as somebody without gRPC does."""
    headers = {"authorization": f"Bearer {key}", "session-id": session}
    body = {"sessionId": session, "content": [{"text": fake(drip(3, ms=10))}]}
    url = f"http://{target}/samovar.v1.Session/Send"
    async with aiohttp.ClientSession() as http, http.post(url, json=body, headers=headers) as found:
        assert found.status == status, await found.text()
        return (await found.text()).splitlines()


class Witness(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # in stubs only
    """A server that is healthy and notes what metadata came with a call."""

    def __init__(self) -> None:
        self.seen: list[dict[str, str]] = []

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            if "Health" in details.method:
                return b"\x08\x01"  # SERVING
            self.seen.append(dict(context.invocation_metadata()))
            return b""

        return grpc.unary_unary_rpc_method_handler(answer)


def test_nobody_outside_says_who_the_tenant_is(directory: Path, signer: Any) -> None:
    """A forged header is taken away; with a token it is replaced by the verified claim."""
    tool("envoy")
    claims = {"iss": "https://issuer.example", "aud": "samovar", "tenant": "acme"}
    claims["exp"] = int(time.time()) + 600  # type: ignore[assignment]  # a number of seconds
    token = jwt.encode(claims, signer, "ES256", headers={"kid": "1"})

    async def story() -> None:
        witness = Witness()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((witness,))
        port = server.add_insecure_port(f"{LOCAL}:0")
        await server.start()
        async with proxy(with_tokens(), directory, [port]) as envoy:
            async with grpc.aio.insecure_channel(envoy.address) as channel:
                call = channel.unary_unary("/samovar.v1.Session/GetSession", None, None)
                forged = ("x-samovar-tenant", "victim")
                for credential in ("samovar_key_x", token, token[:-4] + "AAAA"):
                    bearer = ("authorization", f"Bearer {credential}")
                    await call(b"", metadata=(forged, bearer), timeout=BOUND)
        await server.stop(None)
        tenants = [seen.get("x-samovar-tenant") for seen in witness.seen]
        assert tenants == [None, "acme", None]
        assert [seen["authorization"][:7] for seen in witness.seen] == ["Bearer "] * 3

    asyncio.run(story())
