"""Replacements of the controls of the edge when they are taken out."""

import hmac as real_hmac
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from samovard.core.errors import CredentialInvalid
from samovard.edge import gate, identity, mtls, server, tokens, validate
from samovard.edge.identity import SESSION_SCOPES, Caller
from samovard.edge.jwks import KeySet

ATTACKER, VICTIM = "attacker", "victim"
ANY = re.compile(r".*", re.DOTALL)
HUGE = 1 << 30
RULES = tokens.Rules  # as it is, when it stands for another
ALL = frozenset((*SESSION_SCOPES, "admin"))

_caller = identity.Identity.caller
_gated = gate.Gate._caller
_intercept = gate.Gate.intercept_service
_table = gate.public_table
_public = server.public
_values = identity.Evidence.values
_get = KeySet.get


async def anybody(self: Any, evidence: Any) -> Caller:
    """Return a caller for a call without a credential."""
    try:
        found: Caller = await _caller(self, evidence)
        return found
    except CredentialInvalid:
        return Caller(VICTIM, VICTIM, ALL, "nothing")


async def first_claim(self: Any, evidence: Any) -> Any:
    """Take the first credential of several."""
    claiming = [a for a in self._authenticators if a.claims(evidence)]
    if not claiming:
        raise CredentialInvalid
    return await claiming[0].authenticate(evidence)


async def scopeless(self: Any, evidence: Any, scope: Any) -> Any:
    """Look at no scope."""
    return await self._identity.caller(evidence)


async def named(self: Any, evidence: Any, scope: Any) -> Caller:
    """Believe a tenant that metadata name."""
    found = await _gated(self, evidence, scope)
    return replace(found, tenant=[*evidence.values("x-samovar-tenant"), found.tenant][0])


async def tells_methods(self: Any, continuation: Any, details: Any) -> Any:
    """Tell every caller that a method does not exist."""
    if details.method not in self._table:
        return None
    return await _intercept(self, continuation, details)


def agreeing() -> Any:
    """Return an `hmac` to which everything is equal."""
    return SimpleNamespace(digest=real_hmac.digest, compare_digest=lambda *_: True)


def decoding(**options: Any) -> Any:
    """Return a `jwt` that leaves something out."""

    def decode(*args: Any, **named: Any) -> Any:
        named["options"] = named.get("options", {}) | options
        if options.get("verify_signature") is False:
            named["options"] |= dict.fromkeys(("verify_exp", "verify_aud", "verify_iss"), True)
        return jwt.decode(*args, **named)

    return SimpleNamespace(
        decode=decode,
        get_unverified_header=jwt.get_unverified_header,
        PyJWTError=jwt.PyJWTError,
    )


def by_its_own_algorithm(self: Any, token: str, key: Any) -> Any:
    """Verify a token by the algorithm that it names itself."""
    head = jwt.get_unverified_header(token)
    if head["alg"] == "ES256":
        return _verified(self, token, key)
    text, _, signature = token.rpartition(".")
    if head["alg"] == "HS256":
        pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        if real_hmac.digest(pem, text.encode(), "sha256") != urlsafe_b64decode(signature + "=="):
            raise CredentialInvalid
    return jwt.decode(token, options={"verify_signature": False})


_verified = tokens.Tokens._verified


async def any_key(self: Any, id: str) -> Any:
    """Take any key for one that is not known."""
    return await _get(self, id) or next(iter(self._keys.values()), None)


def as_victim(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes the attacker for the victim."""

    def call(tenant: str, *args: Any, **named: Any) -> Any:
        return function(VICTIM if tenant == ATTACKER else tenant, *args, **named)

    return call


def identities(find: Callable[[Any, Any], dict[str, str]]) -> dict[str, Any]:
    """Return what reads certificates in another way."""
    known = mtls.Mtls._identities
    return {"edge.mtls.Mtls._identities": lambda self, e: known(self, e) or find(self, e)}


def behind(uri: str) -> str:
    """Return the last part of a URI."""
    return uri.rpartition("/")[2]


def optional(*args: Any, **named: Any) -> Any:
    """Return credentials with which a client may do without a certificate."""
    named["require_client_authentication"] = False
    return grpc.dynamic_ssl_server_credentials(*args, **named)


def reflecting(*args: Any, **named: Any) -> Any:
    """Make the server for callers with reflection."""
    return _public(*args, **named | {"reflects": True})


OUT: dict[str, dict[str, Any]] = {
    "credential": {"edge.identity.Identity.caller": anybody},
    "key shape": {
        "edge.identity._KEY": re.compile(r"samovar_([0-9A-Za-z]{12})_([0-9A-Za-z]{43}).*")
    },
    "one credential": {"edge.identity.Evidence.values": lambda self, key: _values(self, key)[:1]},
    "key secret": {"edge.identity.hmac": agreeing()},
    "revocation": {"store.keys.KeyRecord.valid": lambda self, now: True},
    "scopes": {"edge.gate.Gate._caller": scopeless},
    "rows of scopes": {"edge.gate.SESSION": dict.fromkeys(gate.SESSION, "session.read")},
    "unknown methods": {"edge.gate.Gate.intercept_service": tells_methods},
    "reflection": {
        "edge.gate.public_table": lambda **named: _table(**named | {"reflects": True}),
        "edge.server.public": reflecting,
    },
    "health": {"edge.gate.public_table": lambda **named: _table(**named | {"health": True})},
    "tenant of the credential": {"edge.gate.Gate._caller": named},
    "origin": {"edge.identity._BROWSER": ()},
    "exposure": {"settings.checks.exposure": lambda *_: []},
    "socket's mode": {"edge.server.listen_for_owner": server.listen},
    "pinned algorithm": {"edge.tokens.Tokens._verified": by_its_own_algorithm},
    "signature": {"edge.tokens.jwt": decoding(verify_signature=False)},
    "key id": {
        "edge.tokens.Tokens._key_id": lambda self, header: str(header.get("kid")),
        "edge.jwks.KeySet.get": any_key,
    },
    "headers": {"edge.tokens._REFUSED": frozenset()},
    "times": {"edge.tokens.LEEWAY": HUGE},
    "lifetime": {"edge.tokens.Rules": lambda **n: RULES(**n | {"max_lifetime": 1e18})},
    "audience": {"edge.tokens.jwt": decoding(verify_aud=False)},
    "issuer": {"edge.tokens.jwt": decoding(verify_iss=False)},
    "tenant's form": {"edge.tokens.TENANT": ANY},
    "token's size": {"edge.tokens.MAX_TOKEN": HUGE},
    "client certificate": {"edge.certificates.grpc": SimpleNamespace(
        dynamic_ssl_server_credentials=optional,
        ssl_server_certificate_configuration=grpc.ssl_server_certificate_configuration,
    )},
    "one name": identities(lambda self, e: {uri: behind(uri) for uri in e.uris[:1]}),
    "mapped names": identities(lambda self, e: {name: name.partition(".")[0] for name in e.names}),
    "trust domain": identities(
        lambda self, e: {uri: behind(uri) for uri in e.uris if uri.startswith(self._prefix[:-1])}
    ),
    "certificate's tenant": {"edge.mtls.TENANT": ANY},
    "one method": {"edge.identity.Identity.caller": first_claim},
    "session's tenant": {"edge.validate.session": as_victim(validate.session)},
    "turn's tenant": {"edge.validate.turn": as_victim(validate.turn)},
    "stream's tenant": {"edge.validate.attach": as_victim(validate.attach)},
    "answer's tenant": {"edge.validate.respond": as_victim(validate.respond)},
    "prompt's tenant": {"edge.validate.send": as_victim(validate.send)},
    "page's signature": {"edge.pages.hmac": agreeing()},
    "session's name": {"edge.validate.NAME": ANY},
    "turn's id": {"edge.validate.TURN": ANY},
    "page's size": {"edge.validate.page_size": lambda asked, default, most: asked or default},
    "blocks": {"edge.validate.MAX_BLOCKS": HUGE},
    "request's size": {"edge.validate.MAX_REQUEST": HUGE},
    "content": {"edge.validate._digest": lambda request: b""},
}  # fmt: skip
