"""The callers: an attacker, a victim and a stranger, as bare gRPC callers that keep what they get.

Knows the wire and the contract's messages. Judges nothing.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from samovar.v1 import session_pb2 as pb

Metadata = Sequence[tuple[str, str | bytes]]
SESSION = "/samovar.v1.Session/"
OK = grpc.StatusCode.OK
#: Each caller has a connection of its own.
ALONE = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0))
ROOM = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


@dataclass(frozen=True)
class Answer:
    """All that a call was answered with."""

    code: grpc.StatusCode
    details: str
    trailing: tuple[tuple[str, str | bytes], ...]
    messages: list[bytes]

    @property
    def reason(self) -> str:
        """The reason that a failure carries, empty if it has none."""
        for detail in self._status().details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return str(info.reason)
        return ""

    @property
    def cause(self) -> str:
        """The cause beside the reason."""
        for detail in self._status().details:
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                return str(info.metadata["cause"])
        return ""

    def _status(self) -> status_pb2.Status:
        data = dict(self.trailing).get("grpc-status-details-bin", b"")
        return status_pb2.Status.FromString(data if isinstance(data, bytes) else b"")

    @property
    def events(self) -> list[pb.Event]:
        """The events of a turn's stream."""
        return [e for m in self.messages for e in pb.SendResponse.FromString(m).events]

    @property
    def text(self) -> str:
        """What the agent said in a turn's stream."""
        return "".join(e.text_delta.text for e in self.events)

    @property
    def result(self) -> str:
        """The result of the turn, empty without one."""
        return "".join(e.turn_finished.result for e in self.events)

    @property
    def bytes(self) -> bytes:
        """Everything that reached the caller."""
        trailing = [f"{key}={value!r}" for key, value in self.trailing]
        return b"\n".join((self.details.encode(), "\n".join(trailing).encode(), *self.messages))


@dataclass(eq=False)
class Caller:
    """One caller on one connection. `heard` is everything that it ever received."""

    channel: Any
    shown: Metadata = ()
    patience: float = 120.0
    heard: list[bytes] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)

    @classmethod
    def at(
        cls,
        address: str,
        credentials: grpc.ChannelCredentials | None,
        shown: Metadata,
        patience: float,
    ) -> Self:
        """Return a caller that has no connection yet."""
        if credentials is None:
            return cls(grpc.aio.insecure_channel(address, (*ALONE, *ROOM)), shown, patience)
        named = (("grpc.ssl_target_name_override", "samovar.test"),)
        channel = grpc.aio.secure_channel(address, credentials, (*ALONE, *ROOM, *named))
        return cls(channel, shown, patience)

    def begin(self, method: str, message: Message | bytes = b"", metadata: Metadata = ()) -> Any:
        """Begin a call, which is cancelled when the caller leaves at the latest."""
        path = method if method.startswith("/") else SESSION + method
        data = message if isinstance(message, bytes) else message.SerializeToString()
        call = self.channel.unary_stream(path, None, None)(data, metadata=(*self.shown, *metadata))
        self.calls.append(call)
        return call

    async def call(
        self, method: str, message: Message | bytes = b"", metadata: Metadata = ()
    ) -> Answer:
        """Make a call to its end."""
        return await self.end(self.begin(method, message, metadata))

    async def end(self, call: Any, messages: Sequence[bytes] = ()) -> Answer:
        """Read a call to its end, behind what was read of it."""
        read, code, details = [*messages], OK, ""
        trailing: tuple[tuple[str, str | bytes], ...] = ()
        try:
            async with asyncio.timeout(self.patience):
                async for message in call:
                    read.append(message)
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            trailing = tuple((str(key), value) for key, value in _pairs(error))
        answer = Answer(code, details, trailing, read)
        self.heard.append(answer.bytes)
        if call in self.calls:
            self.calls.remove(call)
        return answer

    async def first(self, call: Any) -> list[bytes]:
        """Read the first message of a call."""
        async with asyncio.timeout(self.patience):
            message = await anext(aiter(call), None)
        if message is None:
            return []
        self.heard.append(message)
        return [message]

    async def turn(self, text: str, session: str = "a", **fields: Any) -> Answer:
        """Run a turn, in a session that is made if there is none."""
        return await self.call("Send", sending(text, session, **fields))

    @asynccontextmanager
    async def running(self, text: str, session: str, **fields: Any) -> AsyncIterator[Any]:
        """Hold a turn that began; it is cancelled in the end."""
        call = self.begin("Send", sending(text, session, **fields))
        try:
            yield pb.SendResponse.FromString((await self.first(call))[0]).events[0].turn_started
        finally:
            call.cancel()

    async def leave(self) -> None:
        """Cancel every call that is under way."""
        for call in self.calls:
            call.cancel()
        self.calls.clear()

    async def close(self) -> None:
        """Leave, and close the connection."""
        await self.leave()
        await self.channel.close()


def _pairs(error: Any) -> Iterable[tuple[str, str | bytes]]:
    found: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()
    return found


def sending(text: str, session: str = "a", *, spec: Any = None, **fields: Any) -> pb.SendRequest:
    """Return a request for a turn of one text."""
    request = pb.SendRequest(session_id=session, content=[pb.Content(text=text)], **fields)
    request.spec.CopyFrom(spec or pb.SessionSpec())
    return request


class Victim:
    """An honest tenant with secrets.

    `prompt` makes a prompt of an answer and a question beside it.
    """

    def __init__(self, caller: Caller, key: str, prompt: Callable[[str, str], str]) -> None:
        self.caller = caller
        self.session = f"vault{secrets.token_hex(8)}"
        self._prompt = prompt
        #: Must be in nothing that the service tells or stores, and in no byte that others see.
        self.secrets = [key.rpartition("_")[2]]
        #: As those, but for the store, which keeps the results of turns for their tenant.
        self.answers: list[str] = []
        #: Must be in no byte that others see.
        self.names = [self.session]
        self.seconds: list[float] = []

    def asks(self) -> tuple[str, str]:
        """Return a prompt and its answer, both with a text that no other caller may see."""
        asked, said = (f"canary{secrets.token_hex(16)}" for _ in range(2))
        self.secrets.append(asked)
        self.answers.append(said)
        return self._prompt(said, asked), said

    async def turn(self) -> str:
        """Run a turn and return what is wrong with its answer, empty if nothing is."""
        (prompt, said), begin = self.asks(), time.monotonic()
        try:
            answer = await self.caller.turn(prompt, self.session)
        except TimeoutError:
            return "no answer"
        self.seconds.append(time.monotonic() - begin)
        if answer.code is not OK:
            return f"{answer.code.name} {answer.reason or answer.details}"
        right = answer.result == said and answer.text in ("", said)
        return "" if right else f"another answer: {answer.text!r}, {answer.result!r}"

    async def served(self) -> str:
        """Run turns until one is answered. Return what is wrong, empty if nothing is.

        On a machine that is busy with other work gRPC itself gives up calls that were not handled
        for 30 s; that ends no turn, and the next call may be served.
        """
        end = time.monotonic() + self.caller.patience
        while wrong := await self.turn():
            if wrong.startswith("another") or time.monotonic() > end:
                return wrong
        return ""
