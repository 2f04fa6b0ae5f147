"""Bedrock and Vertex as the CLI meets them, on loopback: a stand-in answers behind their forms."""

import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web

from samovard.standin import StandIn

#: What the cloud's own exchange gives for the subject's token.
EXCHANGED = "canary-exchanged"


@dataclass
class Clouds:
    """Both clouds at one address, and what was asked of them.

    With `refuses`, a request for an answer is denied.
    """

    stand_in: StandIn
    url: str = ""
    refuses: bool = False
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""  # all of every request

    @property
    def answered(self) -> list[tuple[str, dict[str, str]]]:
        """Return the path and the headers of each request for an answer."""
        return [each for each in self.asked if ":streamRaw" in each[0] or "/invoke" in each[0]]

    async def take(self, request: web.Request) -> web.Response:
        """Note a request and answer it."""
        body = await request.text()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.asked.append((request.path, headers))
        self.text += f"{request.raw_path} {headers} {body}"
        if request.path == "/token":
            return web.json_response({"access_token": EXCHANGED, "token_type": "Bearer"})
        if self.refuses or not self.answered or request.method != "POST":
            return web.json_response({"message": "not authorized"}, status=403)
        lines = await self._lines(json.loads(body))
        if "/invoke" in request.path:
            kind = "application/vnd.amazon.eventstream"
            return web.Response(body=b"".join(map(_frame, lines)), content_type=kind)
        told = "".join(f"event: {json.loads(line)['type']}\ndata: {line}\n\n" for line in lines)
        return web.Response(text=told, content_type="text/event-stream")

    async def _lines(self, body: dict[str, object]) -> list[str]:
        """Return the events that the stand-in has for a request."""
        url, asked = f"{self.stand_in.url}/v1/messages", body | {"model": "m", "stream": True}
        async with aiohttp.ClientSession() as session, session.post(url, json=asked) as answer:
            lines = (await answer.text()).splitlines()
        return [line[6:] for line in lines if line.startswith("data: ")]


def _frame(event: str) -> bytes:
    """Return an event as AWS's event stream has it."""
    payload = json.dumps({"bytes": base64.b64encode(event.encode()).decode()}).encode()
    headers = b"".join(
        struct.pack(">B", len(name)) + name + b"\x07" + struct.pack(">H", len(value)) + value
        for name, value in (
            (b":event-type", b"chunk"),
            (b":content-type", b"application/json"),
            (b":message-type", b"event"),
        )
    )
    begin = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    whole = begin + struct.pack(">I", zlib.crc32(begin)) + headers + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


@asynccontextmanager
async def clouds() -> AsyncIterator[Clouds]:
    """Run both."""
    async with StandIn() as stand_in:
        found = Clouds(stand_in)
        app = web.Application(client_max_size=1 << 24)
        app.router.add_route("*", "/{path:.*}", found.take)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield found
        finally:
            await runner.cleanup()
