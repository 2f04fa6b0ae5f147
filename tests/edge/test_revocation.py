"""What is under way ends with its credential, over a real server."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs
from support.revocation_fakes import NOW, Books, Sent, revocation
from support.service import until

from samovar import errors
from samovard.edge import gate, writes
from samovard.edge.identity import API_KEY, Caller, Evidence, Identity
from samovard.edge.revocation import LOOK_EVERY, Revocation

METHOD = "/t.T/Follow"
CALLERS = {
    "old": Caller("acme", "acme", frozenset({"read"}), API_KEY, "old"),
    "new": Caller("acme", "acme", frozenset({"read"}), API_KEY, "new"),
    "blue": Caller("blue", "blue", frozenset({"read"}), API_KEY, "blue"),
    "token": Caller("acme", "somebody", frozenset({"read"}), "jwt", "old", NOW + 60.0),
    "peer": Caller("acme", "spiffe://x/acme", frozenset({"read"}), "mtls", "spiffe://x/acme"),
    "local": Caller("local", "local", frozenset({"read"}), "none"),
}


class Names:
    """Takes a caller's name as its credential."""

    def __init__(self, *, needs_peer: bool) -> None:
        self.needs_peer = needs_peer

    def claims(self, evidence: Evidence) -> bool:
        return True

    async def authenticate(self, evidence: Evidence) -> Caller:
        return CALLERS[evidence.values("authorization")[0]]


class Streams(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # in its stubs only
    """Streams that say who follows them, and then nothing."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self.meanwhile: Callable[[], Coroutine[Any, Any, None]] | None = None

    def service(self, details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(self._follow, bytes)

    async def _follow(self, request: bytes, context: Any) -> None:
        try:
            if self.meanwhile is not None:
                meanwhile = asyncio.ensure_future(self.meanwhile())
            await writes.write(context, request)
            if self.meanwhile is not None:
                await meanwhile
            await asyncio.Event().wait()
        finally:
            self.left.append(request.decode())


@dataclass
class Scene:
    books: Books
    sent: Sent
    revocation: Revocation
    streams: Streams
    channel: grpc.aio.Channel

    async def follow(self, name: str) -> Any:
        """Return a stream that has begun."""
        method: Any = self.channel.unary_stream(METHOD, None, None)
        call = method(name.encode(), metadata=(("authorization", name),))
        assert await call.read() == name.encode()
        return call

    def under_way(self) -> str:
        return repr(self.revocation)


@asynccontextmanager
async def scene(*, needs_peer: bool = False, now: float = NOW) -> AsyncIterator[Scene]:
    books, sent, streams = Books(), Sent(), Streams()
    revoking = revocation(books, sent, now)
    way_in = gate.Gate(Identity([Names(needs_peer=needs_peer)]), {METHOD: "read"}, revoking)
    server = grpc.aio.server(interceptors=[gate.Guard(), way_in], handlers=[streams])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Scene(books, sent, revoking, streams, channel)
    finally:
        await server.stop(None)


async def reason(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call.read()
    return errors.of(error.value).reason


@pytest.mark.parametrize("needs_peer", [False, True])
def test_a_look_ends_the_streams_of_a_revoked_key_and_no_others(needs_peer: bool) -> None:
    """Its handler is left, and other keys of the tenant and other kinds of credential go on."""

    async def story() -> None:
        async with scene(needs_peer=needs_peer) as s:
            calls = {name: await s.follow(name) for name in CALLERS}
            s.books.revoked.add("old")
            await s.revocation.look()
            assert await reason(calls["old"]) == "CREDENTIAL_INVALID"
            assert s.streams.left == ["old"]
            await until(lambda: s.under_way() == "<Revocation calls=5 disabled=0>")
            again: Any = s.channel.unary_stream(METHOD, None, None)
            # Whatever is still known of the key from before the look.
            assert await reason(again(b"", metadata=(("authorization", "old"),))) == (
                "CREDENTIAL_INVALID"
            )
            await s.revocation.look()
            assert not any(call.done() for name, call in calls.items() if name != "old")

    asyncio.run(story())


@pytest.mark.parametrize("needs_peer", [False, True])
def test_a_disabled_tenant_is_refused_and_ended_whatever_its_credential(needs_peer: bool) -> None:
    """By key, token, certificate or none, with one reason; other tenants are served."""

    async def story() -> None:
        async with scene(needs_peer=needs_peer) as s:
            calls = {name: await s.follow(name) for name in CALLERS}
            s.books.disabled |= {"acme", "local"}
            await s.revocation.look()
            for name in CALLERS.keys() - {"blue"}:
                assert await reason(calls[name]) == "TENANT_DISABLED"
                method: Any = s.channel.unary_stream(METHOD, None, None)
                again = method(name.encode(), metadata=(("authorization", name),))
                assert await reason(again) == "TENANT_DISABLED"
            assert not calls["blue"].done()
            s.books.disabled.clear()
            await s.revocation.look()
            await s.follow("old")

    asyncio.run(story())


def test_a_method_that_does_not_exist_is_refused_for_a_disabled_tenant_too() -> None:
    """With the same reason as one that does."""

    async def story() -> None:
        async with scene() as s:
            s.books.disabled.add("acme")
            await s.revocation.look()
            method: Any = s.channel.unary_stream("/t.T/None", None, None)
            assert await reason(method(b"", metadata=(("authorization", "old"),))) == (
                "TENANT_DISABLED"
            )

    asyncio.run(story())


@pytest.mark.parametrize(("left", "ends"), [(LOOK_EVERY, True), (LOOK_EVERY + 0.1, False)])
def test_no_call_outlives_its_token(left: float, ends: bool) -> None:
    """It ends with the last look before the token's end; its turn is not stopped."""

    async def story() -> None:
        async with scene(now=NOW + 60.0 - left) as s:
            s.sent.by = {CALLERS["token"]}
            call = await s.follow("token")
            await s.revocation.look()
            if ends:
                assert await reason(call) == "CREDENTIAL_INVALID"
            await until(lambda: s.under_way() == f"<Revocation calls={int(not ends)} disabled=0>")
            assert not s.sent.stopped

    asyncio.run(story())


def test_a_call_that_is_ended_within_its_first_write_tells_its_caller() -> None:
    """Cut off there, it could send no status any more: its caller would wait for ever."""

    async def story() -> None:
        async with scene() as s:
            s.books.revoked.add("old")
            s.streams.meanwhile = s.revocation.look
            assert await reason(await s.follow("old")) == "CREDENTIAL_INVALID"
            await until(lambda: s.under_way() == "<Revocation calls=0 disabled=0>")

    asyncio.run(story())


def test_turns_end_with_the_key_that_sent_them_and_with_their_tenant() -> None:
    """Those of another key of the tenant run on; one whose stream has gone is stopped as well."""

    async def story() -> None:
        old, new, blue, token = (CALLERS[name] for name in ("old", "new", "blue", "token"))
        books, sent = Books({"old"}), Sent({old, new, blue, token, None})
        revoking = revocation(books, sent)
        await revoking.look()
        assert sent.stopped == {old}
        books.disabled.add("acme")
        await revoking.look()
        assert sent.stopped == {old, new, token}

    asyncio.run(story())


def test_a_look_is_one_question_about_what_is_under_way() -> None:
    """Of all keys of calls and turns together, each once."""

    async def story() -> None:
        async with scene() as s:
            s.sent.by = {CALLERS["old"], CALLERS["token"]}
            for name in ("old", "new", "new", "peer"):
                await s.follow(name)
            await s.revocation.look()
            assert s.books.asked == [{"old", "new"}]

    asyncio.run(story())


def test_a_caller_that_leaves_in_that_moment_is_just_gone() -> None:
    """The stream is left once, and nothing is kept of it."""

    async def story() -> None:
        async with scene() as s:
            call = await s.follow("old")
            s.books.revoked.add("old")
            call.cancel()
            await s.revocation.look()
            await until(lambda: s.under_way() == "<Revocation calls=0 disabled=0>")
            assert s.streams.left == ["old"]

    asyncio.run(story())


def test_a_caller_that_just_leaves_is_no_defect() -> None:
    """Nothing of its credential has ended."""

    async def story() -> None:
        async with scene() as s:
            call = await s.follow("old")
            call.cancel()
            await until(lambda: s.under_way() == "<Revocation calls=0 disabled=0>")
            assert s.streams.left == ["old"]

    with capture_logs() as lines:
        asyncio.run(story())
    assert lines == []
