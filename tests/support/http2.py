"""A bare HTTP/2 client: tests do and see with it what no gRPC client would do or show.

Speaks plain text, or TLS with a context that offers `h2`. Blocks: to be used in a thread.
"""

import contextlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 2, 3, 4, 6, 7, 8
CONTINUATION = 9
ACK = END_STREAM = 1
END_HEADERS = 4
INITIAL_WINDOW_SIZE = 4


class Frame(NamedTuple):
    """One frame as it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Http2:
    """A connection that has sent and acknowledged the protocol's opening frames."""

    def __init__(
        self, port: int, *, window: int = 65535, tls: ssl.SSLContext | None = None
    ) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        if tls is not None:
            self._socket = tls.wrap_socket(self._socket, server_hostname="samovar.test")
        self._buffer = b""
        self._stream = -1
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, window)
        self._socket.sendall(PREFACE)
        self.send(SETTINGS, 0, 0, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        """Send a frame."""
        head = struct.pack(">I", len(payload))[1:] + bytes((kind, flags))
        self._socket.sendall(head + struct.pack(">I", stream) + payload)

    @property
    def stream(self) -> int:
        """The number of the last call's stream."""
        return self._stream

    def call(self, method: str, message: bytes = b"", **metadata: str) -> int:
        """Begin a call with one message; return its stream's number."""
        self.begin(method, **metadata)
        self.send(DATA, END_STREAM, self._stream, b"\0" + struct.pack(">I", len(message)) + message)
        return self._stream

    def begin(self, method: str, **metadata: str) -> int:
        """Begin a call and send no message. Return the number of its stream."""
        self._stream += 2
        fields = {
            ":method": "POST",
            ":scheme": "http",
            ":path": method,
            ":authority": "localhost",
            "te": "trailers",
            "content-type": "application/grpc",
            **metadata,
        }
        self.send(HEADERS, END_HEADERS, self._stream, block(fields))
        return self._stream

    def frames(self, seconds: float, *, answers: bool = True) -> Iterator[Frame]:
        """Yield the frames of so many seconds; end with the connection.

        `answers` is True if frames that must be acknowledged are.
        """
        end = time.monotonic() + seconds
        while (frame := self._next(end)) is not None:
            if answers and frame.kind in (SETTINGS, PING) and not frame.flags & ACK:
                with contextlib.suppress(ConnectionError):  # earlier frames are still read
                    self.send(frame.kind, ACK, 0, frame.payload if frame.kind == PING else b"")
            yield frame

    def _next(self, end: float) -> Frame | None:
        head = self._read(9, end)
        if head is None:
            return None
        length = int.from_bytes(head[:3], "big")
        payload = self._read(length, end)
        if payload is None:
            return None
        return Frame(head[3], head[4], int.from_bytes(head[5:9], "big"), payload)

    def _read(self, size: int, end: float) -> bytes | None:
        while len(self._buffer) < size:
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._socket.settimeout(left)
            try:
                piece = self._socket.recv(65536)
            except (TimeoutError, ConnectionResetError):
                return None
            if not piece:
                return None
            self._buffer += piece
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece


def block(fields: dict[str, str]) -> bytes:
    """Return fields as a header block: literals that no table is to remember."""
    return b"".join(b"\0" + _literal(name) + _literal(fields[name]) for name in fields)


def _literal(text: str) -> bytes:
    data = text.encode()
    if (more := len(data) - 127) < 0:
        return bytes((len(data),)) + data
    length = bytearray((127,))
    while more >= 128:
        length.append(more % 128 + 128)
        more //= 128
    return bytes((*length, more)) + data
