"""The credentials of calls, given to the real authenticators.

Which caller is let in, and as which tenant, is determined here a second time, from the parts that
the input was made of. What grpcio and TLS do before (the bytes of a header, a certificate's chain)
is not run.
"""

import asyncio
import hmac
import json
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import Random

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm
from msgspec import Struct

from fuzz.drawing import TEXTS, edited, text
from fuzz.requests import PEPPER, SCOPES, Shelf, key
from fuzz.target import Check, Target
from samovard.core.errors import CredentialInvalid
from samovard.edge.identity import TENANT, ApiKeys, Caller, Evidence, Identity, NoIdentity
from samovard.edge.jwks import KeySet
from samovard.edge.mtls import Admits, Mtls
from samovard.edge.tokens import LEEWAY, Rules, Tokens

DOMAIN = "mesh.test"
NAMES = {"billing.internal": "acme", "other.internal": "blue"}
RULES = Rules("https://login.test", "samovar", "ES256", "tenant", scope_claim="scope")
HEADER = "x-token"
#: Ways to be set up.
WAYS = ("keys", "tokens", "header", "certificates", "admits", "nobody")
#: How a token may be signed; `right` is the issuer's key.
SIGNERS = ("right", "wrong", "public", "none")
CLAIMS = {
    "iss": '"https://login.test"',
    "aud": '"samovar"',
    "sub": '"somebody"',
    "tenant": '"acme"',
    "iat": "@0",
    "exp": "@600",
    "scope": '"session.read admin"',
}
FIELDS = {"alg": '"ES256"', "kid": '"1"'}
#: JSON that a claim or a field may be instead; `@5` is the time in 5 s.
VALUES = (
    *CLAIMS.values(),
    *("null", "true", "0", "-1", "1e400", "0.5", '""', "[]", "{}", '["samovar"]', '"\\ud800"'),
    *("9" * 5000, '"Acme"', '"acme "', '"acme\\u0000"', '"\\uff41cme"', '"a/../blue"', "[" * 2000),
    *("@-3600", "@31", "@90000", '["session.read",7]', '[["https://login.test"]]', '"none"', "NaN"),
)
MORE = ("crit", "jku", "jwk", "x5c", "x5u", "nbf", "jti", "typ", "b64", "iss", "tenant")
PEERS = (
    "",
    "ipv4:127.0.0.1:40000",
    "ipv6:%5B::1%5D:40000",
    "unix:/run/samovar.sock",
    "ipv4:10.0.0.7:40000",
    "ipv4:127.0.0.1.evil.test:1",
    "ipv6:%5B::ffff:127.0.0.1%5D:1",
)
URIS = (
    "spiffe://mesh.test/acme",
    "spiffe://mesh.test/blue",
    "spiffe://mesh.test.evil/acme",
    "spiffe://mesh.test/acme/x",
    "spiffe://mesh.test/Acme",
    "spiffe://mesh.test/",
    "https://mesh.test/acme",
)
HOSTS = (*NAMES, "Billing.Internal", "*.internal", "billing.internal.", "elsewhere.test")
FIELD_NAMES = ("authorization", "authorization-bin", HEADER, "origin", ":authority", "x-tenant-id")
AUTHORITIES = ("localhost", "127.0.0.1:50051", "[::1]:1", "evil.test", "localhost.evil.test")


class Token(Struct, frozen=True):
    """A token before it is signed: JSON of both parts, in which `@5` is the time in 5 s."""

    fields: list[tuple[str, str]]
    claims: list[tuple[str, str]]
    signer: str
    tail: str = ""  # what stands behind it


class Shown(Struct, frozen=True):
    """What a call shows. In a value `{token}` is the token, which stands nowhere else."""

    way: str
    metadata: list[tuple[str, str]]
    token: Token
    peer: str
    uris: list[str]
    names: list[str]


class Issuer:
    """An issuer that signs tokens, and publishes its key."""

    def __init__(self) -> None:
        self._right, self._wrong = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        self._algorithm = ECAlgorithm(ECAlgorithm.SHA256)

    async def keys(self) -> bytes:
        """Return the JWKS."""
        jwk = json.loads(ECAlgorithm.to_jwk(self._right.public_key()))
        return json.dumps({"keys": [{**jwk, "kid": "1"}]}).encode()

    def sign(self, token: Token, now: int) -> str:
        """Return the text of a token."""
        parts = (_json(token.fields, now), _json(token.claims, now))
        signed = ".".join(_base64(part.encode()) for part in parts)
        return f"{signed}.{_base64(self._signature(token.signer, signed.encode()))}{token.tail}"

    def _signature(self, signer: str, data: bytes) -> bytes:
        if signer in ("right", "wrong"):
            key = self._right if signer == "right" else self._wrong
            return self._algorithm.sign(data, key)
        if signer == "public":
            public = self._right.public_key()
            pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            return hmac.digest(pem, data, "sha256")
        return b""


def _json(members: Sequence[tuple[str, str]], now: int) -> str:
    told = ",".join(f"{json.dumps(name)}:{value}" for name, value in members)
    return re.sub(r"@(-?\d+)", lambda found: str(now + int(found[1])), f"{{{told}}}")


def _base64(data: bytes) -> str:
    return urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def checking() -> Iterator[Check]:
    """Set up every way at once, each an `Identity` of its own."""
    with asyncio.Runner() as runner:
        issuer, loop = Issuer(), runner.get_loop()
        identities = _identities(issuer)

        def check(shown: Shown) -> None:
            now = int(time.time())
            evidence = _evidence(shown, issuer.sign(shown.token, now))
            try:
                caller = loop.run_until_complete(identities[shown.way].caller(evidence))
            except CredentialInvalid as error:
                assert not error.metadata
                assert shown != _good(shown), "a credential that is as it should be is refused"
            else:
                _admitted(shown, evidence, caller, now)

        yield check


def _identities(issuer: Issuer) -> dict[str, Identity]:
    keys = ApiKeys(Shelf(), PEPPER, lambda: 0.0, lambda: 0.0)
    ring = KeySet(issuer.keys, RULES.algorithm, lambda: 0.0)
    header = Rules(**{**{f: getattr(RULES, f) for f in RULES.__slots__}, "header": HEADER})
    return {
        "keys": Identity([keys, Tokens(RULES, ring)]),
        "tokens": Identity([Tokens(RULES, ring)]),
        "header": Identity([keys, Tokens(header, ring)]),
        "certificates": Identity([keys, Mtls(DOMAIN, NAMES)]),
        "admits": Identity([keys, Tokens(RULES, ring)], Admits(DOMAIN, {})),
        "nobody": Identity([NoIdentity()]),
    }


def _evidence(shown: Shown, token: str) -> Evidence:
    metadata = [
        (name, value.encode() if name.endswith("-bin") else value.replace("{token}", token))
        for name, value in shown.metadata
    ]
    return Evidence(metadata, shown.peer, shown.uris, shown.names)


def _admitted(shown: Shown, evidence: Evidence, caller: Caller, now: int) -> None:
    """Check that a caller that was let in has shown its tenant's credential, and once."""
    bearers = [value for name, value in shown.metadata if name == "authorization"]
    assert len(bearers) <= 1
    assert TENANT.fullmatch(caller.tenant)
    if shown.way == "admits":
        assert _identity(shown) in shown.uris
    match caller.method:
        case "api_key":
            assert bearers[0].partition(" ")[2] == key(caller.tenant)
            assert caller.scopes == SCOPES[caller.tenant]
        case "jwt":
            _signed(shown, caller, now)
        case "mtls":
            assert not bearers
            assert NAMES.get(_identity(shown), _identity(shown).rpartition("/")[2]) == caller.tenant
        case "none":
            assert shown.way == "nobody"
            assert shown.peer in PEERS[:4]
            assert not evidence.values("origin")
            named = all(name in AUTHORITIES[:3] for name in evidence.values(":authority"))
            assert named or shown.peer.startswith("unix:")


def _identity(shown: Shown) -> str:
    """Return the one name of ours that a certificate has."""
    ours = [uri for uri in shown.uris if len(shown.uris) == 1 and uri.startswith(URIS[0][:19])]
    if len(shown.names) == 1 and shown.names[0].lower() in NAMES and shown.way != "admits":
        ours.append(shown.names[0].lower())
    (identity,) = ours
    return identity


def _signed(shown: Shown, caller: Caller, now: int) -> None:
    token, place = shown.token, HEADER if shown.way == "header" else "authorization"
    (value,) = (value for name, value in shown.metadata if name == place)
    assert value.endswith("{token}")
    assert token.signer == "right"
    fields = json.loads(_json(token.fields, now))
    claims = json.loads(_json(token.claims, now))
    assert (fields["alg"], fields["kid"]) == (RULES.algorithm, "1")
    assert not fields.keys() & {"crit", "jku", "jwk", "x5c", "x5u"}
    assert (claims["iss"], claims["tenant"]) == (RULES.issuer, caller.tenant)
    audience = claims["aud"]
    assert RULES.audience in ([audience] if isinstance(audience, str) else audience)
    begin, end = claims["iat"], claims["exp"]
    assert (type(begin), type(end), type(claims.get("nbf", 0))) == (int, int, int)
    assert begin - LEEWAY <= now + 5
    assert end + LEEWAY >= now
    assert 0 < end - begin <= RULES.max_lifetime
    told = claims.get("scope", "")
    names = told.split() if isinstance(told, str) else told
    assert caller.scopes <= set(filter(lambda name: isinstance(name, str), names))


GOOD = Token([*FIELDS.items()], [*CLAIMS.items()], "right")


def _good(shown: Shown) -> Shown | None:
    """Return the one input of each way that must be let in, with what does not matter as it is."""
    bearer = {"keys": f"Bearer {key('acme')}", "tokens": "Bearer {token}", "header": "{token}"}
    bearer["admits"] = "bearer {token}"
    name = HEADER if shown.way == "header" else "authorization"
    metadata = [(name, bearer[shown.way])] if shown.way in bearer else []
    uris = [URIS[0]] if shown.way in ("certificates", "admits") else []
    return Shown(shown.way, metadata, GOOD, PEERS[1], uris, [])


def draw(draw: Random) -> Shown:
    """Draw what a call shows: what is good, with a few things changed."""
    way = draw.choice(WAYS)
    good = _good(Shown(way, [], GOOD, "", [], []))
    assert good is not None
    if draw.random() < 0.05:
        return good
    metadata = [(name, _value(draw, value)) for name, value in good.metadata]
    for _ in range(draw.choice((0, 0, 1, 2))):
        value = draw.choice((f"Bearer {key('blue')}", "Bearer {token}", text(draw), *AUTHORITIES))
        metadata.insert(draw.randint(0, len(metadata)), (draw.choice(FIELD_NAMES), value))
    certified = way in ("certificates", "admits") or draw.random() < 0.1
    return Shown(
        way,
        metadata,
        _token(draw) if draw.random() < 0.7 else GOOD,
        draw.choice(PEERS),
        [draw.choice((*URIS, text(draw))) for _ in range(draw.choice((1, 1, 2)))]
        if certified
        else [],
        [draw.choice((*HOSTS, text(draw))) for _ in range(draw.choice((0, 0, 1, 2)))]
        if certified
        else [],
    )


def _value(draw: Random, good: str) -> str:
    way = draw.random()
    if way < 0.5:
        return good
    if way < 0.7:
        scheme = draw.choice(("bearer", "BEARER", "Basic", "", "Bearer ", " Bearer", "Bearer\t"))
        return f"{scheme} {good.rpartition(' ')[2]}"
    if way < 0.9:
        return edited(draw, good.encode()).decode("latin-1")
    return draw.choice(TEXTS)


def _token(draw: Random) -> Token:
    fields, claims = dict(FIELDS), dict(CLAIMS)
    for members in (fields, claims):
        for _ in range(draw.choice((0, 0, 1, 2))):
            name = draw.choice((*members, *MORE))
            if draw.random() < 0.3:
                members.pop(name, None)
            else:
                members[name] = draw.choice(VALUES)
    signer = draw.choice((SIGNERS[0], SIGNERS[0], *SIGNERS))
    doubled = [draw.choice([*CLAIMS.items()])] if draw.random() < 0.05 else []
    tail = draw.choice(("", "", "", "", "=", "A", ".", "\n", text(draw)))
    return Token([*fields.items()], [*claims.items(), *doubled], signer, tail)


TARGET = Target("callers", Shown, draw, checking)
