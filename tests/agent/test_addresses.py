"""Where a child reaches the broker: from its spawn until it has exited, and no longer."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine

import pytest
from support.brokered import Brokered, brokered, status
from support.file_descriptors import descriptors
from support.service import until
from support.timeouts import BOUND

from samovard.agent.addresses import Addresses, Reach
from samovard.agent.isolation.walls import PORT
from samovard.core.process import Launch

START = Launch("p", "acme", "default", "0" * 32, "s", resume=False)
Story = Callable[[Brokered, Addresses], Coroutine[None, None, None]]


def told(story: Story) -> None:
    async def tell() -> None:
        async with brokered() as found:
            await story(found, Addresses(found.broker))

    asyncio.run(tell())


def passed_out(reach: Reach) -> socket.socket:
    """Listen as a child does, on any port, and pass the socket out; return it as well."""
    assert reach.passed is not None
    listener = socket.create_server(("127.0.0.1", 0))
    with socket.socket(fileno=os.dup(reach.passed)) as way:
        socket.send_fds(way, [b"\0"], [listener.fileno()])
    return listener


async def asked(found: Brokered, reach: Reach, port: int) -> int:
    """Return the status of a request by way of a port, 0 if nothing answers."""
    path = "/" + reach.url.split("/", 3)[3] + "/v1/messages"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return 0
    writer.write(found.request(path=path))
    try:
        return status(await asyncio.wait_for(reader.read(), BOUND))
    except ConnectionResetError:
        return 0
    finally:
        writer.close()


def test_a_child_that_is_alone_listens_itself() -> None:
    """What it passes out is served with its tenant's credential, while it works."""

    async def story(found: Brokered, addresses: Addresses) -> None:
        async with addresses.reaching(START, alone=True) as reach:
            assert reach.url.startswith(f"http://127.0.0.1:{PORT}/")
            assert reach.port == PORT
            listener = passed_out(reach)
        port = listener.getsockname()[1]
        listener.close()
        addresses.works(START, working=True)
        assert await asked(found, reach, port) == 200
        addresses.works(START, working=False)
        assert await asked(found, reach, port) == 403
        addresses.exited(START)
        await until(lambda: not found.broker._serving.keys() - {found.address.access.token})
        assert await asked(found, reach, port) == 0

    told(story)


def test_elsewhere_the_service_listens() -> None:
    """On a port of its own for each child."""

    async def story(found: Brokered, addresses: Addresses) -> None:
        async with addresses.reaching(START, alone=False) as reach:
            assert reach.passed is None
            assert f":{reach.port}/" in reach.url
        addresses.works(START, working=True)
        assert await asked(found, reach, reach.port) == 200
        addresses.exited(START)

    told(story)


@pytest.mark.parametrize("alone", [False, True])
def test_a_child_that_is_not_spawned_has_no_address(alone: bool) -> None:
    """Nothing of it is left."""

    async def story(found: Brokered, addresses: Addresses) -> None:
        before = descriptors()
        with pytest.raises(ValueError, match="not spawned"):
            async with addresses.reaching(START, alone=alone):
                raise ValueError("not spawned")
        await until(lambda: descriptors() <= before)

    told(story)


def test_a_child_that_fails_before_it_listens_leaves_nothing() -> None:
    """Its end of the pair is closed with it."""

    async def story(found: Brokered, addresses: Addresses) -> None:
        before = descriptors()
        async with addresses.reaching(START, alone=True):
            pass
        await until(lambda: descriptors() <= before)
        addresses.exited(START)
        addresses.exited(START)

    told(story)


def test_a_child_that_exits_before_its_socket_is_served_leaves_nothing() -> None:
    """Whether the socket is on its way to the service or to the broker."""

    async def story(found: Brokered, addresses: Addresses) -> None:
        before = descriptors()
        async with addresses.reaching(START, alone=True) as reach:
            passed_out(reach).close()
            addresses.exited(START)
        await until(lambda: descriptors() <= before)
        async with addresses.reaching(START, alone=True) as reach:
            passed_out(reach).close()
        await until(lambda: not addresses._awaited)
        addresses.exited(START)
        await until(lambda: descriptors() <= before)

    told(story)
