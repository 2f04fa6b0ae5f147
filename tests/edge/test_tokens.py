"""Tenants by JSON Web Token, and the issuer's keys."""

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from edge.test_identity import PEPPER, Clock, Shelf
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from support.service import prepare, serving, simple

from samovar.v1 import session_pb2 as pb
from samovard.core.errors import CredentialInvalid
from samovard.edge import jwks
from samovard.edge.identity import (
    SESSION_SCOPES,
    ApiKeys,
    Evidence,
    Identity,
    new_key,
)
from samovard.edge.jwks import KeySet
from samovard.edge.tokens import Rules, Tokens

KEY, OTHER = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
RULES = Rules("https://login.test", "samovar", "ES256", "tenant")
GOOD = {"iss": RULES.issuer, "aud": "samovar", "sub": "somebody", "tenant": "acme"}


def public(key: Any, id: str, **more: Any) -> dict[str, Any]:
    kinds: dict[type, Any] = {
        ec.EllipticCurvePrivateKey: ECAlgorithm,
        rsa.RSAPrivateKey: RSAAlgorithm,
    }
    kind: Any = next((k for t, k in kinds.items() if isinstance(key, t)), OKPAlgorithm)
    return {**json.loads(kind.to_jwk(key.public_key())), "kid": id, **more}


def keys(*found: dict[str, Any]) -> bytes:
    return json.dumps({"keys": found}).encode()


def token(key: Any = KEY, algorithm: str = "ES256", header: Any = None, **claims: Any) -> str:
    now = int(time.time())
    merged = {"iat": now, "exp": now + 600} | GOOD | claims
    fields = {"alg": algorithm, "kid": "1"} | (header or {})
    text = ".".join(base64(json.dumps(part).encode()) for part in (some(fields), some(merged)))
    # By hand: PyJWT makes no token that is wrong.
    return f"{text}.{base64(jwt.get_algorithm_by_name(algorithm).sign(text.encode(), key))}"


def some(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


def bearer(*texts: str, key: str = "authorization") -> Evidence:
    return Evidence(tuple((key, f"Bearer {text}") for text in texts))


def identity(rules: Rules = RULES, *others: Any, key: Any = KEY) -> Identity:
    async def read() -> bytes:
        return keys(public(key, "1"))

    return Identity([Tokens(rules, KeySet(read, rules.algorithm, Clock())), *others])


def refused(found: Identity, evidence: Evidence) -> bool:
    with pytest.raises(CredentialInvalid) as error:
        asyncio.run(found.caller(evidence))
    return not error.value.metadata and error.value.__cause__ is None


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", KEY),
        ("RS256", rsa.generate_private_key(65537, 2048)),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
    ],
)
def test_a_token_names_its_tenant(algorithm: str, key: Any) -> None:
    """A valid token of each algorithm names a tenant, a subject and the scopes of callers."""
    found = identity(replace(RULES, algorithm=algorithm), key=key)
    caller = asyncio.run(found.caller(bearer(token(key, algorithm, aud=["x", "samovar"]))))
    assert (caller.tenant, caller.subject, caller.method) == ("acme", "somebody", "jwt")
    assert caller.scopes == SESSION_SCOPES


@pytest.mark.parametrize(("jti", "id"), [("t-1", "t-1"), (None, "somebody")])
def test_a_token_says_which_it_is_and_when_it_ends(jti: str | None, id: str) -> None:
    """Its `jti`, else its subject; `exp` and the 30 s that clocks may differ by."""
    ends = int(time.time()) + 100
    caller = asyncio.run(identity().caller(bearer(token(jti=jti, exp=ends))))
    assert (caller.credential_id, caller.expires_at) == (id, ends + 30)


def unsigned() -> str:
    return token(None, "none")


def confused() -> str:
    """Return a token that is signed with the public key as if that were a secret."""
    pem = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    text, _, _ = token(header={"alg": "HS256"}).rpartition(".")
    return f"{text}.{base64(hmac.digest(pem, text.encode(), 'sha256'))}"


def timed(claims: Callable[[int], dict[str, Any]]) -> str:
    """Return a token with claims of this moment."""
    return token(**claims(int(time.time())))


FAULTS: dict[str, tuple[Any, ...]] = {
    "aud": (None, "other", ["other"], "samovar2", 1),
    "iss": (None, "https://login.test.evil", ["https://login.test"], "login", 1),
    "sub": (None, 7),
    "exp": (None, -1, True),
    "iat": (None, float("inf")),
    "nbf": ("x",),
    "tenant": (
        None,
        "",
        "acme ",
        " acme",
        "Acme",
        "ａｃｍｅ",
        "a/../acme",
        "acme\0",
        "acme\n",
        64 * "a",
        7,
        ["acme"],
        {"acme": 1},
    ),
}
#: Of the moment in which the token is made.
TIMES: dict[str, Callable[[int], dict[str, Any]]] = {
    "exp is over": lambda now: {"exp": now - 100},
    "exp is a text": lambda now: {"exp": str(now + 600)},
    "exp is a fraction": lambda now: {"exp": now + 600.5},
    "exp is far away": lambda now: {"exp": now + 10**9},
    "exp is a list": lambda now: {"exp": [now]},
    "iat is to come": lambda now: {"iat": now + 100},
    "iat is a text": lambda now: {"iat": str(now)},
    "iat is after exp": lambda now: {"iat": now + 700},
    "nbf is to come": lambda now: {"nbf": now + 100},
    "nbf is a fraction": lambda now: {"nbf": now - 0.5},
}
BAD: dict[str, Callable[[], str]] = {
    "unsigned": unsigned,
    "public key as a secret": confused,
    "another key": lambda: token(OTHER),
    "changed": lambda: token()[:-4] + "AAAA",
    "no key id": lambda: token(header={"kid": None}),
    "unknown key id": lambda: token(header={"kid": "../../x"}),
    "long": lambda: token(more=8000 * "a"),
    **{f"header {name}": partial(token, header={name: ["x"]}) for name in (
        "crit", "jku", "x5u", "x5c", "jwk",
    )},
    **{name: partial(timed, claims) for name, claims in TIMES.items()},
    **{
        f"{name}={value!r:.40}": partial(token, **{name: value})
        for name, values in FAULTS.items()
        for value in values
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_token_that_is_not_as_configured_is_refused(name: str) -> None:
    """Each fault is refused alike, and the refusal says nothing of it."""
    assert refused(identity(), bearer(BAD[name]()))


def test_what_is_no_token_is_refused() -> None:
    """Neither nonsense nor two tokens, nor a token beside a key, is a credential."""
    text, record = new_key("acme", PEPPER, 0.0)
    own = replace(RULES, header="x-tenant-token")
    both = identity(own, ApiKeys(Shelf(record), PEPPER, Clock(), Clock()))
    beside = (("authorization", f"Bearer {text}"), ("x-tenant-token", token()))
    for evidence in (bearer("a.b.c"), bearer("x"), bearer(token(), token()), Evidence(())):
        assert refused(identity(), evidence)
    assert refused(both, Evidence(beside))
    assert refused(identity(), Evidence((("authorization", token()),)))


@pytest.mark.parametrize(
    ("header", "metadata"),
    [
        ("authorization", {"authorization": "Bearer {}", "x-serverless-authorization": "Bearer a"}),
        ("x-tenant-token", {"authorization": "Bearer a.b.c", "x-tenant-token": "{}"}),
        ("x-tenant-token", {"authorization": "Bearer a.b.c", "x-tenant-token": "Bearer {}"}),
    ],
)
def test_a_platforms_token_stands_beside_the_tenants(header: str, metadata: dict[str, str]) -> None:
    """What Cloud Run's IAM reads is no credential here, in either of its two places."""
    evidence = Evidence(tuple((key, value.format(token())) for key, value in metadata.items()))
    caller = asyncio.run(identity(replace(RULES, header=header)).caller(evidence))
    assert caller.tenant == "acme"


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("session.read other", {"session.read"}),
        (["session.send", 7, "admin"], {"session.send", "admin"}),
        (None, set()),
        ("", set()),
    ],
)
def test_scopes_are_those_of_the_claim(scope: Any, scopes: set[str]) -> None:
    """Where a claim has scopes a token has those that exist, and without it none."""
    found = identity(replace(RULES, scope_claim="scope"))
    assert asyncio.run(found.caller(bearer(token(scope=scope)))).scopes == scopes


def told(story: Callable[[Clock, list[Any], KeySet], Awaitable[None]]) -> None:
    """Run a story with a clock, the answers of an issuer, the last of which stays, and its keys."""

    async def run() -> None:
        clock, answers = Clock(), [keys(public(KEY, "1"))]
        read.count = 0

        async def answer() -> bytes:
            read.count += 1
            found = answers[0]
            if isinstance(found, Exception):
                raise found
            return bytes(found)

        await story(clock, answers, KeySet(answer, "ES256", clock))

    asyncio.run(run())


class read:
    count = 0


def test_unknown_key_ids_read_the_keys_once_in_30_seconds() -> None:
    """However many there are; a rotated key is known after that, and the old one no more."""

    async def story(clock: Clock, answers: list[Any], found: KeySet) -> None:
        assert await asyncio.gather(*(found.get(f"x{i}") for i in range(100))) == 100 * [None]
        assert read.count == 1
        answers[0] = keys(public(OTHER, "2"))
        clock.now += 29.9
        assert await found.get("2") is None
        assert read.count == 1
        clock.now += 0.2
        assert await found.get("2") is not None
        assert await found.get("1") is None
        assert read.count == 2

    told(story)


@pytest.mark.parametrize(
    "broken", [OSError(), ValueError(), b"<html>", b"[]", b'{"keys": []}', 99 * b"[", b"\xff"]
)
def test_the_last_good_keys_hold_for_an_hour(broken: Any) -> None:
    """While none can be read, known keys are taken for an hour and no longer."""

    async def story(clock: Clock, answers: list[Any], found: KeySet) -> None:
        assert await found.get("1") is not None
        answers[0] = broken
        for _ in range(10):
            clock.now += 359.0
            assert await found.get("1") is not None
            await asyncio.sleep(0)
        clock.now += 11.0
        assert await found.get("1") is None
        assert read.count > 1

    told(story)


def test_a_caller_that_leaves_does_not_end_the_reading() -> None:
    """Others wait for the same keys."""

    async def run() -> None:
        arrived, go = asyncio.Event(), asyncio.Event()

        async def answer() -> bytes:
            arrived.set()
            await go.wait()
            return keys(public(KEY, "1"))

        found = KeySet(answer, "ES256", Clock())
        first, second = (asyncio.create_task(found.get("1")) for _ in range(2))
        await arrived.wait()
        first.cancel()
        go.set()
        assert await second is not None

    asyncio.run(run())


def test_keys_that_do_not_fit_are_not_in_the_set() -> None:
    """Private keys, short ones, other curves and uses, and keys without an id count for nothing."""
    short = rsa.generate_private_key(65537, 1024)
    other = ec.generate_private_key(ec.SECP384R1())
    private = {**json.loads(ECAlgorithm.to_jwk(KEY)), "kid": "private"}
    with pytest.raises(ValueError):
        jwks.parse(keys(public(short, "short")), "RS256")
    found = jwks.parse(
        keys(
            public(KEY, "1"),
            public(KEY, "use", use="enc"),
            public(KEY, "alg", alg="ES384"),
            public(other, "curve"),
            public(short, "kind"),
            private,
            {"kid": "broken", "kty": "EC", "crv": "P-256", "x": "!", "y": 1},
            public(KEY, "none") | {"kid": None},
        ),
        "ES256",
    )
    assert set(found) == {"1"}


def test_keys_by_url_are_read_within_bounds() -> None:
    """A redirect, an error and what is too large are no keys; what is served is."""

    async def serve(request: web.Request) -> web.Response:
        if request.path == "/moved":
            raise web.HTTPFound("/keys")
        body = keys(public(KEY, "1"))
        if request.path == "/large":
            body += b" " * jwks.MAX_BYTES
        return web.Response(body=body, status=500 if request.path == "/error" else 200)

    async def run() -> None:
        app = web.Application()
        app.router.add_get("/{path}", serve)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            for path, there in (("keys", 1), ("moved", 0), ("error", 0), ("large", 0), ("no/", 0)):
                found = KeySet(jwks.reader(f"{url}/{path}"), "ES256", Clock())
                assert bool(await found.get("1")) == there, path
        finally:
            await runner.cleanup()
        gone = KeySet(jwks.reader(f"{url}/keys"), "ES256", Clock())
        assert await gone.get("1") is None

    asyncio.run(run())


def test_a_service_takes_tokens_by_a_file_of_keys(directory: Path) -> None:
    """A token's tenant is served on the real service, and has sessions of its own only."""

    async def story() -> None:
        (directory / "jwks.json").write_bytes(keys(public(KEY, "1")))
        settings = {
            "issuer": RULES.issuer,
            "audience": RULES.audience,
            "jwks": str(directory / "jwks.json"),
            "algorithm": "ES256",
            "tenant_claim": "tenant",
        }
        binary = await prepare(directory, fake=True)
        auth = {"methods": ["jwt"], "jwt": settings}
        async with serving(directory, binary=binary, auth=auth) as run:
            acme, blue = (
                (("authorization", f"Bearer {token(tenant=tenant)}"),)
                for tenant in ("acme", "blue")
            )
            stream = run.stub.Send(simple("Say safe"), metadata=acme)
            events = [event async for response in stream for event in response.events]
            assert events[-1].turn_finished.result == "safe"
            asked = pb.ListSessionsRequest()
            assert len((await run.stub.ListSessions(asked, metadata=acme)).sessions) == 1
            assert len((await run.stub.ListSessions(asked, metadata=blue)).sessions) == 0

    asyncio.run(story())
