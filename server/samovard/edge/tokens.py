"""Tenants by JSON Web Token of one issuer, for one audience, with one algorithm.

Knows tokens and their claims. Knows nothing of where keys come from.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from samovard.core.errors import CredentialInvalid
from samovard.edge.identity import ADMIN_SCOPES, SESSION_SCOPES, TENANT, Caller, Evidence
from samovard.edge.jwks import PublicKey

LEEWAY = 30  # seconds that clocks may differ by
MAX_TOKEN = 6 << 10  # bytes: with it metadata stay below their limit
_SHAPE = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
#: Headers by which a token would choose its own key, or ask for extensions that are not understood.
_REFUSED = frozenset({"crit", "jku", "jwk", "x5c", "x5u"})


@dataclass(frozen=True, slots=True)
class Rules:
    """Requirements on a token.

    With an empty `scope_claim` each token has the scopes of `Session`.
    """

    issuer: str
    audience: str
    algorithm: str
    tenant_claim: str
    scope_claim: str = ""
    header: str = "authorization"
    max_lifetime: float = 24 * 3600.0


class Keys(Protocol):
    """The issuer's keys."""

    async def get(self, id: str) -> PublicKey | None:
        """Return a key by its id, or None."""


class Tokens:
    """JSON Web Tokens in one metadata key: as `Bearer <token>` in `authorization`, bare in
    others.
    """

    needs_peer = False

    def __init__(self, rules: Rules, keys: Keys) -> None:
        self._rules = rules
        self._keys = keys

    def claims(self, evidence: Evidence) -> bool:
        """True if the call carries exactly one value of the shape of a token."""
        return bool(self._token(evidence))

    async def authenticate(self, evidence: Evidence) -> Caller:
        """Return the tenant of a token. Raise `CredentialInvalid` if it is not valid."""
        token = self._token(evidence)
        try:
            key = await self._keys.get(self._key_id(jwt.get_unverified_header(token)))
            if key is None or len(token) > MAX_TOKEN:
                raise CredentialInvalid
            return self._caller(self._verified(token, key))
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
            raise CredentialInvalid from None

    def _token(self, evidence: Evidence) -> str:
        values = evidence.values(self._rules.header)
        if len(values) != 1:
            return ""
        scheme, _, token = values[0].rpartition(" ")
        bare = not scheme and self._rules.header != "authorization"
        return token if (bare or scheme.lower() == "bearer") and _SHAPE.fullmatch(token) else ""

    def _key_id(self, header: Mapping[str, Any]) -> str:
        id = header.get("kid")
        if not isinstance(id, str) or _REFUSED & header.keys():
            raise CredentialInvalid
        return id

    def _verified(self, token: str, key: PublicKey) -> Mapping[str, Any]:
        rules = self._rules
        required = ["exp", "iat", "iss", "aud", "sub", rules.tenant_claim]
        claims: Mapping[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[rules.algorithm],
            audience=rules.audience,
            issuer=rules.issuer,
            leeway=LEEWAY,
            options={"require": required},
        )
        times = [claims[name] for name in ("exp", "iat", "nbf") if name in claims]
        # PyJWT accepts strings and fractions for times, too.
        if not all(type(time) is int for time in times):
            raise CredentialInvalid
        if not isinstance(claims["iss"], str) or not 0 < times[0] - times[1] <= rules.max_lifetime:
            raise CredentialInvalid
        return claims

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        tenant, subject = claims[self._rules.tenant_claim], claims["sub"]
        if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
            raise CredentialInvalid
        id = claims.get("jti") or subject
        ends = claims["exp"] + LEEWAY
        return Caller(tenant, subject, self._scopes(claims), "jwt", str(id), ends)

    def _scopes(self, claims: Mapping[str, Any]) -> frozenset[str]:
        if not self._rules.scope_claim:
            return SESSION_SCOPES
        found = claims.get(self._rules.scope_claim, "")
        names = found.split() if isinstance(found, str) else found
        known = SESSION_SCOPES | ADMIN_SCOPES
        return known & {name for name in names if isinstance(name, str)}
