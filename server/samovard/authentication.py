"""Which credentials callers and operators show, by the settings.

Knows every authenticator. Knows nothing of servers or of what a caller may do.
"""

import time
from collections.abc import Callable

from samovard.edge.identity import ADMIN_SCOPES, ApiKeys, Authenticator, Identity, Keys, Nobody
from samovard.edge.mtls import Admits, Mtls
from samovard.settings import Auth


def identities(auth: Auth, keys: Keys, pepper: Callable[[], bytes]) -> tuple[Identity, Identity]:
    """Return how callers are identified, and how operators are.

    With `none` everybody who can open the operator's socket is the operator: there is one tenant,
    and all of it is open to them anyway. Otherwise operators have API keys whatever the method:
    no certificate has the scope `admin`, and a unix socket shows none.
    """
    if "none" in auth.methods:
        return Identity([Nobody()]), Identity([Nobody(ADMIN_SCOPES)])
    api_keys = ApiKeys(keys, pepper(), time.time, time.monotonic)
    callers: list[Authenticator] = [api_keys] if "api_key" in auth.methods else []
    if "mtls" not in auth.methods:
        return Identity(callers), Identity([api_keys])
    if not auth.mtls.tenant:
        return Identity(callers, Admits(auth.mtls.trust_domain, {})), Identity([api_keys])
    callers.append(Mtls(auth.mtls.trust_domain, auth.mtls.names))
    return Identity(callers), Identity([api_keys])
