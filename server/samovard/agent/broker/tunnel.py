"""Two connections whose bytes pass from each to the other, as fast as the slower takes them.

Knows transports. Knows nothing of who they lead to.
"""

import asyncio
import socket
import struct
from collections.abc import Callable

READ = 32 << 10  # bytes that are read at once
HIGH = 16 << 10  # bytes that wait for their reader until no more are read
IDLE_TIMEOUT = 300.0  # seconds without a byte either way

Turn = Callable[[bytes], bytes]


class End(asyncio.BufferedProtocol):
    """One of a tunnel's connections. `turn` makes what is sent on of what was read."""

    def __init__(self, tunnel: "Tunnel", transport: asyncio.Transport, turn: Turn | None) -> None:
        self._tunnel = tunnel
        self._turn = turn
        self.transport = transport
        self.other: End
        self.passed = 0
        self.ended = False  # no more will come
        self.lost = False

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return the tunnel's buffer: what is read is sent on before anything else is read."""
        return self._tunnel.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Send on what was read."""
        self.take(bytes(self._tunnel.buffer[:nbytes]))

    def take(self, data: bytes) -> None:
        """Send data on that came from here."""
        self._tunnel.touched()
        try:
            passed = self._turn(data) if self._turn else data
        except ValueError:
            self._tunnel.abort()
            return
        self.passed += len(passed)
        if passed and not self.other.transport.is_closing():
            self.other.transport.write(passed)

    def pause_writing(self) -> None:
        """Called when this end's reader is behind."""
        self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Called when this end's reader has caught up."""
        self._tunnel.touched()
        self.other.transport.resume_reading()

    def eof_received(self) -> bool:
        """End the other's input; what it still says passes."""
        self.ended = True
        self._tunnel.touched()
        if self.other.ended:
            self._tunnel.close()
        elif self.other.transport.can_write_eof():
            self.other.transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other too: what it has been sent is still written, unless this one broke off."""
        self.lost = True
        if exc is None:
            self.other.transport.close()
        else:
            _break_off(self.other.transport)
        self._tunnel.lost()


def _break_off(transport: asyncio.Transport) -> None:
    # Closed as it is, it would end in order: its reader could take what it has for all.
    if not transport.is_closing():
        at_once = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    transport.abort()


class Tunnel:
    """A connection of an agent, one to a host, and what passes between them."""

    def __init__(
        self,
        near: asyncio.Transport,
        far: asyncio.Transport,
        ended: Callable[[int, int], None],
        *,
        request: Turn | None = None,
        answer: Turn | None = None,
    ) -> None:
        self.buffer = memoryview(bytearray(READ))
        self._loop = asyncio.get_running_loop()
        self._told = ended
        self._touched = self._loop.time()
        self._near, self._far = End(self, near, request), End(self, far, answer)
        self._near.other, self._far.other = self._far, self._near
        for end in (self._near, self._far):
            end.transport.set_write_buffer_limits(high=HIGH)
            end.transport.set_protocol(end)
        self._timer = self._loop.call_later(IDLE_TIMEOUT, self._look)

    def start(self, sent: bytes, received: bytes) -> None:
        """Pass what has come by now from either side, and then what comes."""
        for end, data in ((self._near, sent), (self._far, received)):
            # First: what is written may be more than the other's reader takes.
            end.transport.resume_reading()
            if data:
                end.take(data)

    def touched(self) -> None:
        """Called when a byte has passed."""
        self._touched = self._loop.time()

    def _look(self) -> None:
        left = self._touched + IDLE_TIMEOUT - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self.abort()

    def close(self) -> None:
        """End both connections once what waits for their readers is written."""
        self._near.transport.close()
        self._far.transport.close()

    def abort(self) -> None:
        """End both connections at once. Idempotent."""
        self._near.transport.abort()
        self._far.transport.abort()

    def lost(self) -> None:
        """Called when a connection has ended."""
        if self._near.lost and self._far.lost:
            self._timer.cancel()
            self._told(self._near.passed, self._far.passed)
