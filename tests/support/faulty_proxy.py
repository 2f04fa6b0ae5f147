"""A proxy that cuts connections, or lets nothing through, when the test tells it to."""

import asyncio
from types import TracebackType
from typing import Self


class Proxy:
    """A proxy that passes bytes on to an address. An async context manager."""

    def __init__(self, address: str) -> None:
        self._target = address
        self._writers: set[asyncio.StreamWriter] = set()
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server
        self.address = ""
        self.connections = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        self.cut()
        await self._server.wait_closed()

    def cut(self) -> None:
        """Break every connection at once, as a network does; new ones may be made."""
        for writer in self._writers:
            writer.transport.abort()
        self._open.set()

    def freeze(self) -> None:
        """Pass nothing on to clients from now on, until connections are cut."""
        self._open.clear()

    def to(self, address: str) -> None:
        """Lead new connections elsewhere."""
        self._target = address

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._target.rpartition(":")
        ends = [writer]
        self._writers.add(writer)
        self.connections += 1
        try:
            back_reader, back_writer = await asyncio.open_connection(host, int(port))
            ends.append(back_writer)
            self._writers.add(back_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, back_writer, waits=False))
                group.create_task(self._pass(back_reader, writer, waits=True))
        except* OSError:
            pass  # no server is there, or the connection was cut
        finally:
            for end in ends:
                end.transport.abort()
                self._writers.discard(end)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, waits: bool
    ) -> None:
        while data := await reader.read(65536):
            if waits:
                await self._open.wait()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
