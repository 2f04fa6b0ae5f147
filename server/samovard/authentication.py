"""The credentials that callers and operators show, from the settings.

Knows every authenticator. Knows nothing of servers or of what a caller may do.
"""

import time
from collections.abc import Callable

from samovard.edge.identity import ADMIN_SCOPES, ApiKeys, Authenticator, Identity, Keys, NoIdentity
from samovard.edge.mtls import Admits, Mtls
from samovard.settings import Auth, Jwt


def identities(auth: Auth, keys: Keys, pepper: Callable[[], bytes]) -> tuple[Identity, Identity]:
    """Return how callers are identified, and how operators are.

    With `none`, any process that can open the operator's socket is the operator: there is one
    tenant, and all of it is open to such a process anyway. Otherwise operators have API keys,
    whatever the method of callers, or tokens: no certificate has the scope `admin`, and a unix
    socket shows none.
    """
    if "none" in auth.methods:
        return Identity([NoIdentity()]), Identity([NoIdentity(ADMIN_SCOPES)])
    api_keys = ApiKeys(keys, pepper(), time.time, time.monotonic)
    tokens: list[Authenticator] = [_tokens(auth.jwt)] if "jwt" in auth.methods else []
    operators = Identity([api_keys, *tokens])
    callers = [api_keys, *tokens] if "api_key" in auth.methods else tokens
    if "mtls" not in auth.methods:
        return Identity(callers), operators
    if not auth.mtls.tenant:
        return Identity(callers, Admits(auth.mtls.trust_domain, {})), operators
    return Identity([*callers, Mtls(auth.mtls.trust_domain, auth.mtls.names)]), operators


def _tokens(jwt: Jwt) -> Authenticator:
    # Imported here: what tokens need takes a fifth of a start, and most services use none.
    from samovard.edge.jwks import KeySet, reader
    from samovard.edge.tokens import Rules, Tokens

    assert jwt.algorithm is not None
    rules = Rules(
        issuer=jwt.issuer,
        audience=jwt.audience,
        algorithm=jwt.algorithm,
        tenant_claim=jwt.tenant_claim,
        scope_claim=jwt.scope_claim,
        header=jwt.header,
        max_lifetime=jwt.max_lifetime,
    )
    return Tokens(rules, KeySet(reader(jwt.jwks), jwt.algorithm, time.monotonic))
