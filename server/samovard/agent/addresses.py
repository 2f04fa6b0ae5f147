"""Where each child reaches the broker: an address from its spawn until it has exited.

Knows the broker's addresses, and how a child with a network of its own passes the socket out that
it listens on. Knows nothing of what passes, nor of how a child is run.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from samovard.agent.isolation.walls import PORT
from samovard.core.process import Launch

if TYPE_CHECKING:  # what it is made of is imported only where there is one
    from samovard.agent.broker.broker import Address, Broker


@dataclass(frozen=True, slots=True)
class Reach:
    """What a child is told: the API's address, its tools' proxy, and the hosts beside that.

    `passed` is where a child that is alone in its network passes a socket to that listens on
    `port`; None elsewhere, where the service listens.
    """

    url: str
    near: tuple[str, ...] = ()
    proxy: str = ""
    port: int = PORT
    passed: int | None = None


class Addresses:
    """The broker's addresses by process id."""

    def __init__(self, broker: "Broker") -> None:
        self._broker = broker
        self._open: dict[str, Address] = {}
        self._awaited: dict[str, socket.socket] = {}  # where a child's listening socket comes

    @asynccontextmanager
    async def reaching(
        self, start: Launch, *, alone: bool, hosts: tuple[str, ...] = ()
    ) -> AsyncIterator[Reach]:
        """Yield what a child must be told, which must be spawned inside the `async with` block.

        `hosts` are what its tools reach.
        """
        from samovard.agent.broker.broker import HOST, listen

        whose = (start.tenant, start.profile)
        try:
            if alone:
                address = self._broker.reserve(PORT, *whose, session=start.session, hosts=hosts)
            else:
                address = await self._broker.open(
                    listen(), *whose, session=start.session, hosts=hosts
                )
            self._open[start.process_id] = address
            reach = Reach(address.url, (HOST,), address.proxy if hosts else "", address.port)
            if alone:
                with self._passage(start, address) as passed:
                    yield replace(reach, passed=passed)
            else:
                yield reach
        except BaseException:
            self.exited(start)
            raise

    @contextmanager
    def _passage(self, start: Launch, address: "Address") -> Iterator[int]:
        """Yield the child's end of a pair of sockets; its own is served as soon as it comes."""
        ours, theirs = socket.socketpair()
        self._awaited[start.process_id] = ours
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        loop.add_reader(ours, self._take, start, address)
        with theirs:
            yield theirs.fileno()

    def _take(self, start: Launch, address: "Address") -> None:
        """Serve the socket that a child has passed out; one that failed before has passed none."""
        ours = self._awaited[start.process_id]
        _, descriptors, _, _ = socket.recv_fds(ours, 1, 1, socket.MSG_CMSG_CLOEXEC)
        self._forget(start)
        for descriptor in descriptors:
            address.listen(socket.socket(fileno=descriptor))

    def _forget(self, start: Launch) -> None:
        if (ours := self._awaited.pop(start.process_id, None)) is not None:
            asyncio.get_running_loop().remove_reader(ours)
            ours.close()

    def works(self, start: Launch, *, working: bool) -> None:
        """Let the child reach the API while it works, and then no more."""
        if (address := self._open.get(start.process_id)) is not None:
            address.allow(open=working)

    def exited(self, start: Launch) -> None:
        """Close the child's address, if it has one."""
        self._forget(start)
        if (address := self._open.pop(start.process_id, None)) is not None:
            address.close()
