"""The broker's thread and its addresses: each begins and ends with its process."""

import asyncio
import contextlib
import socket
import threading
from functools import partial

import pytest
from aiohttp import web
from support.brokered import Tenants, brokered, status
from support.service import until
from support.timeouts import BOUND

from samovard.agent.broker.broker import Broker, Serving, listen
from samovard.agent.broker.door import MAX_CONNECTIONS
from samovard.agent.broker.keys import Keys
from samovard.agent.broker.passages import Passages
from samovard.agent.broker.proxy import Access, Proxy
from samovard.agent.broker.upstream import Clients, Upstream
from samovard.agent.broker.ways import Ways


def test_addresses_are_not_guessed() -> None:
    """Each has a port and 256 random bits of its own."""

    async def story() -> None:
        async with brokered() as found:
            urls = {(await found.open()).url for _ in range(10)}
            assert len({url.split("/")[2] for url in urls}) == 10
            tokens = {url.rsplit("/", 1)[1].removeprefix("samovar_broker_") for url in urls}
            assert len(tokens) == 10
            assert {len(bytes.fromhex(token)) for token in tokens} == {32}
            assert repr(found.address) == "<Address open=True bound=True>"

    asyncio.run(story())


def test_an_address_ends_with_all_that_runs_on_it() -> None:
    """Idle connections too; its port answers no more, and others go on."""
    running = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if await request.read() == b"{}":
            return web.json_response({})
        running.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> None:
        async with brokered(answer) as found:
            first = found.address
            idle, writer = await asyncio.open_connection("127.0.0.1", found.port)
            asked = asyncio.create_task(found.raw(found.request(b"hang")))
            await asyncio.wait_for(running.wait(), BOUND)
            port = found.port
            found.address = await found.open()
            first.close()
            first.close()
            assert await asyncio.wait_for(idle.read(), BOUND) == b""
            writer.close()
            assert await asked == b""
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            assert status(await found.raw(found.request())) == 200

    asyncio.run(story())


def test_an_agent_cannot_take_all_descriptors() -> None:
    """Connections beyond a bound are closed at once; those before them live."""

    async def story() -> None:
        async with brokered() as found:
            pairs = [
                await asyncio.open_connection("127.0.0.1", found.port)
                for _ in range(MAX_CONNECTIONS)
            ]
            late, writer = await asyncio.open_connection("127.0.0.1", found.port)
            assert await asyncio.wait_for(late.read(), BOUND) == b""
            writer.close()
            pairs[0][1].write(found.request())
            assert status(await asyncio.wait_for(pairs[0][0].read(), BOUND)) == 200
            for _, writer in pairs:
                writer.close()

    asyncio.run(story())


def test_a_tenants_connections_are_its_own() -> None:
    """An answer that is out of step could only reach the tenant that it belongs to."""
    connections: dict[str, set[object]] = {"acme": set(), "globex": set()}

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        tenant = request.headers["x-api-key"].removeprefix("sk-")
        # Not by its port, which a later connection may have again.
        connections[tenant].add(request.transport)
        return web.json_response({})

    async def story() -> None:
        provider = Tenants(values={"acme": "sk-acme", "globex": "sk-globex"})
        async with brokered(answer, provider) as found:
            for _ in range(3):
                for tenant in connections:
                    found.address = await found.open(tenant)
                    assert status(await found.raw(found.request())) == 200

    asyncio.run(story())
    assert connections["acme"]
    assert connections["acme"].isdisjoint(connections["globex"])


def test_nothing_is_left_of_a_broker() -> None:
    """No thread, no socket, whatever still runs on it."""
    running = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        running.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def story() -> asyncio.Task[bytes]:
        async with brokered(answer) as found:
            asked = asyncio.create_task(found.raw(found.request()))
            await asyncio.wait_for(running.wait(), BOUND)
            assert "broker" in {thread.name for thread in threading.enumerate()}
        found.address.close()
        await asyncio.wait({asked}, timeout=BOUND)
        return asked

    asked = asyncio.run(story())
    assert asked.result() == b""
    assert "broker" not in {thread.name for thread in threading.enumerate()}


def test_a_connection_that_is_made_while_its_address_ends_is_closed() -> None:
    """However far it has come by then."""

    async def story() -> None:
        upstream = Upstream("http://127.0.0.1:1")
        for steps in range(8):
            clients = Clients(upstream, upstream.tls())
            access = Access("token", "default")
            proxy = Proxy(access, Keys(Tenants()), clients, lambda _: None)
            passages = Passages(access, Ways(upstream), lambda _: None)
            serving, listener = Serving(proxy, passages), listen()
            await serving.listen(listener)
            with socket.create_connection(listener.getsockname()) as client:
                client.setblocking(False)
                for _ in range(steps):
                    await asyncio.sleep(0)
                await serving.end()
                with contextlib.suppress(ConnectionResetError):
                    received = asyncio.get_running_loop().sock_recv(client, 1)
                    assert await asyncio.wait_for(received, BOUND) == b""

    asyncio.run(story())


def test_a_caller_that_leaves_while_it_opens_an_address_leaves_none() -> None:
    """Its socket is closed, at whichever await it left."""

    async def story() -> None:
        async with brokered() as found:
            for steps in range(6):
                port = (listener := listen()).getsockname()[1]
                opening = asyncio.create_task(found.broker.open(listener, "acme", "default"))
                for _ in range(steps):
                    await asyncio.sleep(0)
                opening.cancel()
                await asyncio.wait({opening})
                if not opening.cancelled():
                    opening.result().close()
                elif not steps:  # it never began
                    listener.close()
                await until(partial(refuses, port))

    asyncio.run(story())


def refuses(port: int) -> bool:
    with socket.socket() as caller:
        return caller.connect_ex(("127.0.0.1", port)) != 0


def test_it_serves_a_socket_that_it_is_given() -> None:
    """The port that it tells is that socket's, which something else has made."""

    async def story() -> None:
        async with Broker(Tenants(), Upstream("http://127.0.0.1:9")) as broker:
            listener = listen()
            port = listener.getsockname()[1]
            address = await broker.open(listener, "acme", "default")
            assert address.url.startswith(f"http://127.0.0.1:{port}/samovar_broker_")

    asyncio.run(story())
