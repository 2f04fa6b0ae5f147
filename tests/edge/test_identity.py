"""Who calls, and what a credential must look like."""

import asyncio
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from support.revocation_fakes import revocation

from samovard.core.errors import CredentialInvalid
from samovard.edge import gate, identity
from samovard.edge.identity import (
    SESSION_SCOPES,
    ApiKeys,
    Evidence,
    Identity,
    NoIdentity,
    current_caller,
    new_key,
)
from samovard.edge.revocation import LOOK_EVERY
from samovard.store.keys import KeyRecord

PEPPER = b"pepper" * 6


class Shelf:
    """Keys in memory."""

    def __init__(self, *keys: KeyRecord) -> None:
        self.keys = {key.id: key for key in keys}

    async def get(self, id: str) -> KeyRecord | None:
        return self.keys.get(id)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def bearer(*keys: str) -> Evidence:
    return Evidence(tuple(("authorization", f"Bearer {key}") for key in keys))


def refused(identity: Identity, evidence: Evidence) -> CredentialInvalid:
    with pytest.raises(CredentialInvalid) as error:
        asyncio.run(identity.caller(evidence))
    return error.value


def keys_of(*records: KeyRecord, clock: Clock | None = None) -> Identity:
    clock = clock or Clock()
    return Identity([ApiKeys(Shelf(*records), PEPPER, clock, clock)])


def test_a_key_names_its_tenant() -> None:
    """A key that was given out says whose it is and what it may do."""
    text, record = new_key("acme", PEPPER, 0.0)
    caller = asyncio.run(keys_of(record).caller(bearer(text)))
    assert (caller.tenant, caller.scopes) == ("acme", SESSION_SCOPES)
    assert (caller.method, caller.credential_id) == ("api_key", record.id)


def test_the_secret_is_not_in_the_record() -> None:
    """What is stored cannot be used as a key."""
    text, record = new_key("acme", PEPPER, 0.0)
    assert text.split("_")[2] not in repr(record)
    assert len(record.mac) == 32


def test_every_fault_is_told_alike() -> None:
    """Missing, malformed, unknown, wrong, expired or revoked: the same error."""
    text, record = new_key("acme", PEPPER, 0.0, expire_time=2000.0)
    other, _ = new_key("acme", PEPPER, 0.0)
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    late = Clock()
    late.now = 2000.0
    revoked = KeyRecord(record.id, "acme", SESSION_SCOPES, record.mac, 0.0, None, 1.0)
    errors = [
        refused(keys_of(record), Evidence(())),
        refused(keys_of(record), bearer("nonsense")),
        refused(keys_of(record), bearer(other)),
        refused(keys_of(record), bearer(wrong)),
        refused(keys_of(record), bearer(text, text)),
        refused(keys_of(record, clock=late), bearer(text)),
        refused(keys_of(revoked), bearer(text)),
        refused(Identity(()), bearer(text)),
    ]
    assert len({repr(error) for error in errors}) == 1


def test_another_pepper_opens_nothing() -> None:
    """A stolen table of keys is useless without the pepper."""
    text, record = new_key("acme", b"another" * 5, 0.0)
    refused(keys_of(record), bearer(text))


def test_what_the_store_said_of_a_key_is_believed_for_2_seconds() -> None:
    """Not longer: with the pause between two looks at what is under way it makes less than 5 s."""
    assert identity.CACHE_TIME + LOOK_EVERY < 5.0
    text, record = new_key("acme", PEPPER, 0.0)
    shelf, clock = Shelf(record), Clock()
    callers = Identity([ApiKeys(shelf, PEPPER, clock, clock)])
    asyncio.run(callers.caller(bearer(text)))
    shelf.keys.clear()
    clock.now += 1.9
    asyncio.run(callers.caller(bearer(text)))
    clock.now += 0.2
    refused(callers, bearer(text))


@pytest.mark.parametrize(
    ("authority", "peer", "admitted"),
    [
        ("localhost:50051", "ipv4:127.0.0.1:40000", True),
        ("127.0.0.1:50051", "", True),
        ("[::1]:50051", "ipv6:%5B::1%5D:40000", True),
        ("anything", "unix:", True),
        ("rebound.example:50051", "ipv4:127.0.0.1:40000", False),
        ("localhost:50051", "ipv4:10.0.0.7:40000", False),
    ],
)
def test_without_credentials_only_this_machine_is_served(
    authority: str, peer: str, admitted: bool
) -> None:
    """Identity `none` admits local peers that call by a local name, as tenant `local`."""
    evidence = Evidence(((":authority", authority),), peer)
    if admitted:
        assert asyncio.run(Identity([NoIdentity()]).caller(evidence)).tenant == "local"
    else:
        refused(Identity([NoIdentity()]), evidence)


@pytest.mark.parametrize("field", ["origin", "referer", "sec-fetch-site", "sec-fetch-mode"])
def test_a_page_of_another_origin_is_no_caller_of_this_machine(field: str) -> None:
    """What a browser adds to a page's requests is refused, also with an empty value."""
    for value in ("https://page.example", "null", ""):
        evidence = Evidence(((field, value),), "ipv4:127.0.0.1:40000")
        refused(Identity([NoIdentity()]), evidence)


def test_two_claims_are_none() -> None:
    """Exactly one authenticator must claim a call."""
    text, record = new_key("acme", PEPPER, 0.0)
    keys = ApiKeys(Shelf(record), PEPPER, Clock(), Clock())
    refused(Identity([keys, NoIdentity()]), bearer(text))


def test_two_credentials_are_none() -> None:
    """`authorization` is there at most once, whoever claims the call."""
    refused(Identity([NoIdentity()]), bearer("a", "b"))


class Counted(Shelf):
    """Keys that can be asked for only while `open`; counts who asks, by id."""

    def __init__(self, *keys: KeyRecord) -> None:
        super().__init__(*keys)
        self.asked: list[str] = []
        self.open = asyncio.Event()
        self.open.set()

    async def get(self, id: str) -> KeyRecord | None:
        self.asked.append(id)
        await self.open.wait()
        return await super().get(id)


def test_unknown_keys_take_no_place_of_known_ones() -> None:
    """However many ids are tried, the store is not asked again for a key that it has given."""

    async def story() -> None:
        text, record = new_key("acme", PEPPER, 0.0)
        keys = ApiKeys(shelf := Counted(record), PEPPER, Clock(), Clock())
        await keys.authenticate(bearer(text))
        for _ in range(1010):
            with pytest.raises(CredentialInvalid):
                await keys.authenticate(bearer(new_key("acme", PEPPER, 0.0)[0]))
        await keys.authenticate(bearer(text))
        assert shelf.asked.count(record.id) == 1

    asyncio.run(story())


def test_unknown_keys_are_asked_for_one_at_a_time() -> None:
    """However many ids are tried at once, and each once; a key that was given waits for none."""

    async def story() -> None:
        clock = Clock()
        text, record = new_key("acme", PEPPER, 0.0)
        keys = ApiKeys(shelf := Counted(record), PEPPER, clock, clock)
        await keys.authenticate(bearer(text))
        clock.now += 6.0
        shelf.open.clear()
        tried = [new_key("acme", PEPPER, 0.0)[0] for _ in range(20)] * 2
        calls = [asyncio.ensure_future(keys.authenticate(bearer(key))) for key in tried]
        await asyncio.sleep(0)
        known = asyncio.ensure_future(keys.authenticate(bearer(text)))
        await asyncio.sleep(0)
        assert len(shelf.asked) == 3  # the first key twice, and one that is unknown
        shelf.open.set()
        assert (await known).tenant == "acme"
        refusals = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(refusal, CredentialInvalid) for refusal in refusals)
        assert len(shelf.asked) == 2 + 20

    asyncio.run(story())


def test_what_is_cached_is_bounded() -> None:
    """However many ids are tried, no more than a thousand are remembered."""

    async def story() -> None:
        keys = ApiKeys(Shelf(), PEPPER, Clock(), Clock())
        for _ in range(1010):
            text, _ = new_key("acme", PEPPER, 0.0)
            with pytest.raises(CredentialInvalid):
                await keys.authenticate(bearer(text))
        assert len(keys._unknown) == 1000

    asyncio.run(story())


@dataclass
class Details:
    """What an interceptor is told of a call."""

    method: str
    invocation_metadata: tuple[tuple[str, str], ...] = ()


class Context:
    """Notes how a call was aborted."""

    def __init__(self, peer: str = "") -> None:
        self._peer = peer
        self.aborted: list[Any] = []

    def peer(self) -> str:
        return self._peer

    def invocation_metadata(self) -> None:
        return None

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    async def abort(
        self, code: grpc.StatusCode, details: str, trailing_metadata: Any = None
    ) -> None:
        self.aborted = [code, details, trailing_metadata]
        raise grpc.aio.AbortError


def test_a_method_without_a_row_is_denied() -> None:
    """Also a method that exists: the table alone opens, and a known caller sees no handler."""
    looked: list[str] = []

    async def found(details: Any) -> Any:
        looked.append(details.method)
        return object()

    async def story() -> None:
        text, record = new_key("acme", PEPPER, 0.0)
        shown = (("authorization", f"Bearer {text}"),)
        details: Any = Details("/samovar.v1.Session/Send", shown)
        assert (
            await gate.Gate(keys_of(record), {}, revocation()).intercept_service(found, details)
            is None
        )
        # Where the peer decides, only what stands in the handler's place sees it.
        handler = await gate.Gate(Identity([NoIdentity()]), {}, revocation()).intercept_service(
            found, details
        )
        for peer, code in (
            ("ipv4:127.0.0.1:40000", grpc.StatusCode.UNIMPLEMENTED),
            ("ipv4:10.0.0.7:40000", grpc.StatusCode.UNAUTHENTICATED),
        ):
            context = Context(peer)
            with pytest.raises(grpc.aio.AbortError):
                await handler.stream_stream(None, context)
            assert context.aborted[0] is code
        assert looked == []

    asyncio.run(story())


def test_the_gate_refuses_a_peer_of_another_machine_before_the_handler_runs() -> None:
    """The metadata look local; only the handler's context names the peer."""
    answered: list[object] = []

    async def answer(request: object, context: object) -> None:
        answered.append(request)

    async def found(details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(answer)

    async def story() -> None:
        gated = gate.Gate(Identity([NoIdentity()]), gate.public_table(reflects=False), revocation())
        details: Any = Details("/samovar.v1.Session/GetSession")
        handler = await gated.intercept_service(found, details)
        context = Context("ipv4:10.0.0.7:40000")
        with pytest.raises(grpc.aio.AbortError):
            await handler.stream_stream(None, context)
        assert context.aborted[0] is grpc.StatusCode.UNAUTHENTICATED
        assert answered == []

    asyncio.run(story())


def test_a_defect_of_the_gate_denies_and_says_nothing() -> None:
    """What goes wrong before there is a handler becomes the same constant text."""

    async def broken(details: Any) -> Any:
        raise RuntimeError("a secret detail")

    async def story() -> None:
        details: Any = Details("/samovar.v1.Session/Send")
        handler = await gate.Guard().intercept_service(broken, details)
        assert handler.request_streaming
        context = Context()
        with pytest.raises(grpc.aio.AbortError):
            await handler.stream_stream(None, context)
        assert context.aborted[0] is grpc.StatusCode.INTERNAL
        assert "secret" not in str(context.aborted)
        assert "traceId" in str(context.aborted)

    asyncio.run(story())


def test_outside_of_a_call_there_is_no_caller() -> None:
    """Nothing can act for a tenant outside of a call."""
    with pytest.raises(LookupError):
        current_caller()
