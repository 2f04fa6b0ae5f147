"""The first bytes of a connection: by them it is led to the model's API or to a tool's host.

Knows sockets' protocols. Knows nothing of what either side makes of a request.
"""

import asyncio
from collections.abc import Callable, Sized
from dataclasses import dataclass, field

from aiohttp import web

from samovard.agent.broker.heads import END, MAX_HEAD, asks_a_proxy
from samovard.agent.broker.passages import Passages, Verdict

MAX_CONNECTIONS = 64  # of one agent to the API, with those that it keeps and does not use
HEAD_TIMEOUT = 10.0  # seconds from the first byte of a tool's request until its head is whole
LINGERING = 2.0  # seconds in which the rest of a refused body may come, so that the answer is read
READ = 16 << 10


@dataclass(slots=True)
class Doors:
    """The connections of one socket of which it is not known yet where they lead.

    `api` makes the protocol of those that lead to the API, which are in `known` from then on.
    """

    passages: Passages
    api: Callable[[], web.RequestHandler]
    known: Callable[[], Sized]
    waiting: set["Door"] = field(default_factory=set)
    ends: bool = False  # no connection is taken any more

    @property
    def full(self) -> bool:
        """True if there are as many connections as an agent may have."""
        return len(self.waiting) + len(self.known()) >= MAX_CONNECTIONS

    def end(self) -> None:
        """Close every connection, also one that is being made."""
        self.ends = True
        for door in self.waiting:
            door.transport.abort()


class Door(asyncio.BufferedProtocol):
    """One connection, until it is known where it leads."""

    def __init__(self, doors: Doors) -> None:
        self._doors = doors
        self._loop = asyncio.get_running_loop()
        self._view = memoryview(bytearray(READ))
        self._filled = 0
        self._asks = False  # for a proxy
        self._refused = False
        self._timer: asyncio.TimerHandle | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, if there are not too many."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # One that was accepted before the end may be made after it.
        if self._doors.ends or self._doors.full:
            transport.abort()
        else:
            self._doors.waiting.add(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return what is left of the buffer."""
        return self._view[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Look where the connection leads."""
        if self._refused:
            return
        self._filled += nbytes
        found = bytes(self._view[: self._filled])
        if not self._asks:
            asks = asks_a_proxy(found)
            if asks is False:
                self._lead_to_api(found)
                return
            self._asks = bool(asks)
        if self._timer is None:
            self._timer = self._loop.call_later(HEAD_TIMEOUT, self.transport.abort)
        if self._asks:
            self._ask(found)

    def _lead_to_api(self, found: bytes) -> None:
        self._leave()
        protocol = self._doors.api()
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        protocol.data_received(found)

    def _ask(self, found: bytes) -> None:
        place = found.find(END, 0, MAX_HEAD)
        if place >= 0:
            asked = self._doors.passages.judged(found[: place + len(END)])
            if isinstance(asked, bytes):
                self.refuse(asked)
            else:
                self._leave()
                self.transport.pause_reading()
                self._doors.passages.start(self, asked, found[place + len(END) :])
        elif len(found) >= MAX_HEAD:
            self.refuse(self._doors.passages.refused(Verdict.TOO_LARGE))

    def refuse(self, answer: bytes) -> None:
        """Answer, and end the connection once its tool has read that."""
        self._leave()
        if self.transport.is_closing():
            return
        self._doors.waiting.add(self)
        self._refused = True
        self._filled = 0
        self._timer = self._loop.call_later(LINGERING, self.transport.abort)
        self.transport.write(answer)
        self.transport.write_eof()
        self.transport.resume_reading()

    def _leave(self) -> None:
        self._doors.waiting.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._leave()
