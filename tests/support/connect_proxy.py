"""A corporate proxy on loopback that decrypts TLS, records, and leads everything to a stand-in."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

SETTINGS = "/api/claude_code/settings"


class ConnectProxy:
    """A proxy that takes CONNECT and answers for each host with one certificate.

    An async context manager. `tunnels` are the hosts that were asked for, `paths` those of the
    first request of each. Requests for the CLI's settings are answered once `open` is set.
    """

    def __init__(self, certificate: tuple[Path, Path], target: str) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*certificate)
        self._host, _, self._port = target.removeprefix("http://").rpartition(":")
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.tunnels: list[str] = []
        self.paths: list[str] = []
        self.open = asyncio.Event()
        self.open.set()
        self.delay = 0.0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Accept no more connections, and end the existing ones. Idempotent."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._lead(reader, writer)
        except asyncio.CancelledError:
            pass  # by `close`
        finally:
            self._tasks.discard(task)

    async def _lead(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends = [writer]
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            method, where, _ = head.split(" ", 2)
            assert method == "CONNECT", head
            self.tunnels.append(where)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.drain()
            await writer.start_tls(self._context)
            first = await reader.readuntil(b"\r\n\r\n")
            path = first.split(b" ", 2)[1].decode("latin-1")
            self.paths.append(path)
            if path.startswith(SETTINGS):
                await self._settings(writer)
                return
            back_reader, back = await asyncio.open_connection(self._host, int(self._port))
            ends.append(back)
            back.write(first)
            await asyncio.gather(_pass(reader, back), _pass(back_reader, writer))
        except (OSError, asyncio.IncompleteReadError):
            pass  # it has gone, or trusts no such certificate
        finally:
            for end in ends:
                end.transport.abort()

    async def _settings(self, writer: asyncio.StreamWriter) -> None:
        await self.open.wait()
        await asyncio.sleep(self.delay)  # how slow the API is here
        writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()
