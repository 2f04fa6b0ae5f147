"""Tokens that differ from those that the issuer makes."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable

from edge.test_tokens import BAD, FAULTS, TIMES, token

from security.actors import OK
from security.arena import Arena, jwt
from security.catalog import attack
from security.identity import UNKNOWN, alike


async def refused(arena: Arena, texts: Iterable[str]) -> None:
    """Raise `AssertionError` unless a good token is taken, and these are refused alike."""
    assert (await jwt(arena).call("ListSessions")).code is OK
    caller = arena.caller()
    shown = [(("authorization", f"Bearer {text}"),) for text in texts]
    alike([await caller.call("ListSessions", metadata=one) for one in shown], UNKNOWN)


def faults(claim: str) -> list[str]:
    """Return tokens with each bad value of a claim."""
    return [token(**{claim: value}) for value in FAULTS[claim]]


@attack("edge.tokens.Rules.algorithm", "tls", without="pinned algorithm")
async def a_token_without_a_signature(arena: Arena) -> None:
    """The algorithm `none` is refused."""
    await refused(arena, [BAD["unsigned"](), token() + "."])


@attack("edge.tokens.Tokens._verified", "tls", without="pinned algorithm")
async def a_token_signed_with_the_public_key(arena: Arena) -> None:
    """A public key is no shared secret, whatever the token says that it is."""
    await refused(arena, [BAD["public key as a secret"]()])


@attack("edge.tokens.jwt", "tls", without="signature")
async def a_token_of_another_signer(arena: Arena) -> None:
    """Another key's signature and a changed one are refused."""
    await refused(arena, [BAD["another key"](), BAD["changed"]()])


@attack("edge.tokens.Tokens._key_id", "tls", without="key id")
async def key_ids_that_are_tricks(arena: Arena) -> None:
    """An id only selects a known key: paths, queries, numbers and none at all are refused."""
    ids = [None, "../../x", "/dev/null", "1' or '1'='1", 1, ["1"], "", "1\n", 900 * "1"]
    await refused(arena, [token(header={"kid": id}) for id in ids])


@attack("edge.tokens._REFUSED", "tls", without="headers")
async def a_token_that_brings_its_own_key(arena: Arena) -> None:
    """`jku`, `jwk`, `x5u`, `x5c` and `crit` are refused, and nothing is fetched."""
    async with listener() as (address, connections):
        texts = [BAD[f"header {name}"]() for name in ("crit", "jku", "x5u", "x5c", "jwk")]
        texts.append(token(header={"jku": address, "x5u": address}))
        await refused(arena, texts)
        assert not connections, "the service fetched what a token named"


@contextlib.asynccontextmanager
async def listener() -> AsyncIterator[tuple[str, list[object]]]:
    """Serve nothing. Yield the address and what connected."""
    connections: list[object] = []

    def connected(reader: object, writer: asyncio.StreamWriter) -> None:
        connections.append(reader)
        writer.close()

    async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}/keys", connections


@attack("edge.tokens.LEEWAY", "tls", without="times")
async def a_token_before_or_after_its_time(arena: Arena) -> None:
    """Expired, not valid yet, or issued in the future: refused."""
    await refused(arena, [token(**TIMES[name](int(time.time()))) for name in (
        "exp is over", "iat is to come", "nbf is to come",
    )])  # fmt: skip


@attack("edge.tokens.Rules.max_lifetime", "tls", without="lifetime")
async def a_token_for_ever(arena: Arena) -> None:
    """One that lives longer than tokens may is refused."""
    await refused(arena, [token(**TIMES["exp is far away"](int(time.time())))])


@attack("edge.tokens.Tokens._caller", "tls")
async def times_that_are_no_numbers(arena: Arena) -> None:
    """Texts, fractions, lists and infinity are no times."""
    now = int(time.time())
    odd = ("exp is a text", "exp is a fraction", "exp is a list", "iat is a text")
    texts = [token(**TIMES[name](now)) for name in (*odd, "iat is after exp", "nbf is a fraction")]
    await refused(arena, [*texts, *faults("exp"), *faults("iat"), *faults("nbf")])


@attack("edge.tokens.Rules.audience", "tls", without="audience")
async def a_token_for_somebody_else(arena: Arena) -> None:
    """Another audience, a list without ours, and none: refused."""
    await refused(arena, faults("aud"))


@attack("edge.tokens.Rules.issuer", "tls", without="issuer")
async def a_token_of_another_issuer(arena: Arena) -> None:
    """A part of the issuer, more than it, a list with it, and none: refused."""
    await refused(arena, faults("iss"))


@attack("edge.tokens.TENANT", "tls", without="tenant's form")
async def a_tenant_that_is_almost_one(arena: Arena) -> None:
    """Spaces, case, full-width letters, paths, NUL, and what is not text name no tenant."""
    await refused(arena, faults("tenant"))


@attack("edge.tokens.MAX_TOKEN", "tls", without="token's size")
async def a_token_that_is_too_large(arena: Arena) -> None:
    """Past 6 KiB it is refused, before gRPC's own limit for metadata."""
    await refused(arena, [token(more=5000 * "a")])
