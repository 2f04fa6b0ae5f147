"""A proxy that breaks a connection before or after one of the frames of HTTP/2 that pass it."""

import asyncio
import itertools
from types import TracebackType
from typing import Self

PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
HEAD = 9  # bytes of a frame's head, the first three of which are the length of its rest


class CuttingProxy:
    """A proxy that cuts the first connection at one frame, and lets all others be.

    Frames are counted from 0 in both directions together; `after` it passes that frame, else not.
    Its connections end with its block.
    """

    def __init__(self, target: str, cut_at: int, *, after: bool) -> None:
        self._target = target
        self._cut_at = cut_at
        self._after = after
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.address = ""
        self.frames = 0  # of the connections before the cut
        self.cut = False

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
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        host, _, port = self._target.rpartition(":")
        ends = [writer]
        try:
            back_reader, back_writer = await asyncio.open_connection(host, int(port))
            ends.append(back_writer)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, back_writer, PREFACE))
                group.create_task(self._pass(back_reader, writer, 0))
        except* (OSError, asyncio.IncompleteReadError):
            pass  # cut, here or there
        finally:
            for end in ends:
                end.transport.abort()
            self._tasks.discard(task)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, preface: int
    ) -> None:
        writer.write(await reader.readexactly(preface))
        for _ in itertools.count():
            head = await reader.readexactly(HEAD)
            frame = head + await reader.readexactly(int.from_bytes(head[:3]))
            number, self.frames = self.frames, self.frames + (not self.cut)
            cuts = number == self._cut_at and not self.cut
            self.cut = self.cut or cuts
            if not cuts or self._after:
                writer.write(frame)
                await writer.drain()
            if cuts:
                if self._after:
                    # What an abort discards would not have passed.
                    writer.write_eof()
                    await writer.drain()
                raise ConnectionResetError
