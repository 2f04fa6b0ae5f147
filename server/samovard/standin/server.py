"""A loopback server that stands in for the Messages API, without a model.

Answers as the prompt's script says, and remembers the requests.
"""

import asyncio
import json
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from samovard.standin import sse, steps

MAX_BODY = 64 << 20
KEPT = 10_000
STOP_TIMEOUT = 0.2


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as it came in. `credentials` are the values of its credential headers.

    `system` is its system prompt, `files` the media types and SHA-256s of content that is not text.
    """

    path: str
    credentials: tuple[str, ...] = field(repr=False)
    traceparent: str
    session_id: str
    model: str
    message_count: int
    system: str = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)
    files: tuple[tuple[str, str], ...]
    size: int
    time: float


class StandIn:
    """The server: an async context manager. `url` is its address once it runs.

    `on_body` is called with the raw body of each model request, before it is answered.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int = 0, unix_path: str | None = None
    ) -> None:
        self._host = host
        self._port = port
        self._unix_path = unix_path
        self._failures: Counter[str] = Counter()
        self._runner: web.AppRunner | None = None
        self._leaving = asyncio.Event()
        self._seen: deque[SeenRequest] = deque(maxlen=KEPT)
        self.url = ""
        self.on_body: Callable[[bytes], object] = lambda raw: None

    @property
    def requests(self) -> list[SeenRequest]:
        """The model requests so far, oldest first; the last 10,000 are kept."""
        return list(self._seen)

    def clear(self) -> None:
        """Forget the requests so far."""
        self._seen.clear()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_post("/v1/messages", self._messages)
        app.router.add_post("/v1/messages/count_tokens", self._count_tokens)
        app.router.add_get("/", self._root)  # answers HEAD, too
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=STOP_TIMEOUT, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        if self._unix_path is not None:
            await web.UnixSite(self._runner, self._unix_path).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._leaving.set()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _root(self, request: web.Request) -> web.Response:
        return web.Response(text="a stand-in for the Messages API; it is no model\n")

    async def _count_tokens(self, request: web.Request) -> web.Response:
        body = await request.read()
        return web.json_response({"input_tokens": len(body) // 4})

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        try:
            body = json.loads(raw)
            conversation = steps.read(body["messages"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return web.json_response(sse.error(400), status=400)
        self._remember(request, body, conversation, len(raw))
        self.on_body(raw)
        try:
            step = steps.next_step(conversation)
        except steps.NotAScript as error:
            refusal = sse.error(400, message=f"the prompt's script is not valid: {error}")
            return web.json_response(refusal, status=400, headers=_named())
        for verb in step:
            if "delay" in verb and await self._leaves(verb["delay"]):
                return web.Response(status=503)
            if "status" in verb and self._fails(conversation, verb):
                return _failure(verb)
        model = str(body.get("model", ""))
        if not body.get("stream"):
            return web.json_response(sse.whole(step, model), headers=_named())
        try:
            return await self._stream(request, step, model)
        except ConnectionResetError:  # the caller has left
            return web.Response(status=499)

    def _remember(
        self,
        request: web.Request,
        body: dict[str, Any],
        conversation: steps.Conversation,
        size: int,
    ) -> None:
        headers = request.headers
        credentials = (headers.get(name) for name in ("x-api-key", "authorization"))
        self._seen.append(
            SeenRequest(
                path=request.path_qs,
                credentials=tuple(value for value in credentials if value),
                traceparent=headers.get("traceparent", ""),
                session_id=headers.get("x-claude-code-session-id", ""),
                model=str(body.get("model", "")),
                message_count=len(body["messages"]),
                system=steps.system(body.get("system", "")),
                texts=conversation.texts,
                files=steps.files(body["messages"]),
                size=size,
                time=time.monotonic(),
            )
        )

    def _fails(self, conversation: steps.Conversation, verb: dict[str, Any]) -> bool:
        """True if a script's error status is due again: its calls are counted by prompt."""
        self._failures[conversation.prompt] += 1
        times: int = verb.get("times", 1)
        return self._failures[conversation.prompt] <= times

    async def _stream(
        self, request: web.Request, step: steps.Step, model: str
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={
                "content-type": "text/event-stream",
                "cache-control": "no-cache",
                **_named(),
            }
        )
        await response.prepare(request)
        stall, die = (next((v[key] for v in step if key in v), None) for key in ("stall", "die"))
        count = 0
        for event in sse.response(step, model):
            if isinstance(event, sse.Pause):
                if await self._leaves(event.seconds):
                    return response
                continue
            if count == stall:
                await self._leaving.wait()
                return response
            if count == die:
                await self._break(request)
                return response
            await response.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
            count += 1
        await response.write_eof()
        return response

    async def _leaves(self, seconds: float) -> bool:
        """Wait for some seconds. Return True if the server is about to stop."""
        try:
            await asyncio.wait_for(self._leaving.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _break(self, request: web.Request) -> None:
        # A reset discards unread data: the reader gets a moment first.
        await self._leaves(0.05)
        if request.transport is not None:
            request.transport.abort()


def _named() -> dict[str, str]:
    """Return a new name for an answer, as the API does: the CLI repeats it with its own lines."""
    return {"request-id": f"req_{uuid.uuid4().hex[:24]}"}


def _failure(verb: dict[str, Any]) -> web.Response:
    code: int = verb["status"]
    headers = _named() | ({"retry-after": "1"} if code == 429 else {})
    error = {key: verb[key] for key in ("kind", "message") if key in verb}
    return web.json_response(sse.error(code, **error), status=code, headers=headers)
