"""Authenticators: they turn what a call carries into a `Caller`.

Knows metadata, peers and keys. Knows nothing of what a caller may do with a session.
"""

import asyncio
import hashlib
import hmac
import math
import re
import secrets
import string
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from samovard.core.errors import CredentialInvalid
from samovard.store.keys import KeyRecord

SESSION_SCOPES = frozenset({"session.send", "session.read", "session.control"})
TENANT = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
LOCAL_TENANT = "local"
ADMIN_SCOPES = frozenset({"admin"})

_KEY = re.compile(r"samovar_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})")
_LOOPBACK = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")
_LOCAL_PEER = re.compile(r"(ipv4:127\.\d+\.\d+\.\d+:\d+|ipv6:%5B::1%5D:\d+|unix:.*)")
_BROWSER = frozenset({"origin", "referer", "sec-fetch-site", "sec-fetch-mode"})
_BASE62 = string.digits + string.ascii_letters
_CACHED = 1000
CACHE_TIME = 2.0  # seconds
API_KEY = "api_key"  # the method of keys that samovard issues


@dataclass(frozen=True, slots=True)
class Caller:
    """The author of a call, and the scopes of its credential.

    `expires_at` is when a token ends, in seconds since the epoch; a key's end is in the store.
    """

    tenant: str
    subject: str
    scopes: frozenset[str]
    method: str
    credential_id: str = ""
    expires_at: float = math.inf


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a call shows of its caller: its metadata, its peer as gRPC spells it, its certificate.

    `uris` and `names` are the URIs and DNS names of a client certificate that was verified.
    """

    metadata: Sequence[tuple[str, str | bytes]]
    peer: str = ""
    uris: Sequence[str] = ()
    names: Sequence[str] = ()

    def values(self, key: str) -> list[str]:
        """Return every value of a metadata key."""
        return [str(value) for name, value in self.metadata if name == key]


class Authenticator(Protocol):
    """Checker of one kind of credential. `needs_peer`: it looks at more than metadata."""

    needs_peer: bool

    def claims(self, evidence: Evidence) -> bool:
        """True if the call carries that kind of credential, judged by its shape alone."""

    async def authenticate(self, evidence: Evidence) -> Caller:
        """Return the caller. Raise `CredentialInvalid`."""


class NoIdentity:
    """No credential: every caller on this machine is tenant `local`.

    Or, on the operator's listener, the operator.
    """

    needs_peer = True

    def __init__(self, scopes: frozenset[str] = SESSION_SCOPES) -> None:
        self._scopes = scopes

    def claims(self, evidence: Evidence) -> bool:
        """Return True: every call is accepted."""
        return True

    async def authenticate(self, evidence: Evidence) -> Caller:
        """Admit callers of this machine that address it by a name of this machine.

        A browser that a hostile name led here (DNS rebinding) sends that name. grpcio 1.85 does not
        show it to handlers, so today the peer alone decides. A browser speaks no HTTP/2 without
        TLS; what it sends over TLS for a page of another origin names that origin, and no gRPC
        client sends such a field.
        """
        if not _BROWSER.isdisjoint(name for name, _ in evidence.metadata):
            raise CredentialInvalid
        authority = evidence.values(":authority")
        named = all(_LOOPBACK.fullmatch(name) for name in authority)
        local = not evidence.peer or _LOCAL_PEER.fullmatch(evidence.peer)
        if not local or not (named or evidence.peer.startswith("unix:")):
            raise CredentialInvalid
        return Caller(LOCAL_TENANT, LOCAL_TENANT, self._scopes, "none")


class Keys(Protocol):
    """The store of keys."""

    async def get(self, id: str) -> KeyRecord | None:
        """Return a key by its public id, or None."""


class ApiKeys:
    """Keys that samovard issues: `Bearer samovar_<id>_<secret>`, stored as an HMAC.

    A key that was read from the store is used for 2 s; `Revocation` ends what a key began that was
    revoked meanwhile.
    """

    needs_peer = False

    def __init__(
        self,
        keys: Keys,
        pepper: bytes,
        wall: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._pepper = pepper
        self._wall = wall
        self._monotonic = monotonic
        self._cache: OrderedDict[str, tuple[float, KeyRecord | None]] = OrderedDict()
        self._unknown: OrderedDict[str, tuple[float, KeyRecord | None]] = OrderedDict()
        self._asking = asyncio.Lock()

    def claims(self, evidence: Evidence) -> bool:
        """True for a call with exactly one `authorization` of the right shape."""
        return _parsed(evidence) is not None

    async def authenticate(self, evidence: Evidence) -> Caller:
        """Return the tenant of a key that is known and neither expired nor revoked."""
        parsed = _parsed(evidence)
        if parsed is None:
            raise CredentialInvalid
        id, secret = parsed
        record = await self._lookup(id)
        # An unknown id takes as long as a wrong secret.
        expected = record.mac if record is not None else bytes(32)
        same = hmac.compare_digest(mac(self._pepper, secret), expected)
        if record is None or not same or not record.valid(self._wall()):
            raise CredentialInvalid
        return Caller(record.tenant, record.tenant, record.scopes, API_KEY, record.id)

    async def _lookup(self, id: str) -> KeyRecord | None:
        if (known := self._fresh(id)) is not None:
            return known[1]
        if id in self._cache:
            return await self._asked(id)
        # One look-up at a time, so that made-up ids cannot fill the store's queue.
        async with self._asking:
            known = self._fresh(id)
            return known[1] if known is not None else await self._asked(id)

    def _fresh(self, id: str) -> tuple[float, KeyRecord | None] | None:
        known = self._cache.get(id) or self._unknown.get(id)
        fresh = known is not None and self._monotonic() - known[0] < CACHE_TIME
        return known if fresh else None

    async def _asked(self, id: str) -> KeyRecord | None:
        now = self._monotonic()
        record = await self._keys.get(id)
        for cache in (self._cache, self._unknown):
            cache.pop(id, None)
        cache = self._unknown if record is None else self._cache
        cache[id] = (now, record)
        if len(cache) > _CACHED:
            cache.popitem(last=False)
        return record


class Identity:
    """The authenticators in force: exactly one must claim a call.

    With `admits` a call must also show that credential, whose tenant is not used.
    """

    def __init__(
        self, authenticators: Sequence[Authenticator], admits: Authenticator | None = None
    ) -> None:
        self._authenticators = tuple(authenticators)
        self._admits = admits
        parts = authenticators if admits is None else (*authenticators, admits)
        self.needs_peer = any(part.needs_peer for part in parts)

    async def caller(self, evidence: Evidence) -> Caller:
        """Return the caller. Raise `CredentialInvalid`, which is the same for every fault."""
        if len(evidence.values("authorization")) > 1:
            raise CredentialInvalid
        if self._admits is not None:
            await self._admits.authenticate(evidence)
        claiming = [a for a in self._authenticators if a.claims(evidence)]
        if len(claiming) != 1:
            raise CredentialInvalid
        return await claiming[0].authenticate(evidence)


_caller: ContextVar[Caller] = ContextVar("caller")


def set_caller(caller: Caller) -> None:
    """Set the caller of the call that this context serves; called by the gate only."""
    _caller.set(caller)


def tenant() -> str:
    """Return the tenant of the current call; empty for a caller without a credential."""
    caller = _caller.get(None)
    return caller.tenant if caller is not None else ""


def current_caller() -> Caller:
    """Return the caller of the current call. Raise `LookupError` outside of one."""
    return _caller.get()


def mac(pepper: bytes, secret: str) -> bytes:
    """Return the MAC under which a key's secret is stored.

    The secret is random, so a slow hash is not needed.
    """
    return hmac.digest(pepper, secret.encode("ascii"), hashlib.sha256)


def new_key(
    tenant: str,
    pepper: bytes,
    now: float,
    expire_time: float | None = None,
    scopes: frozenset[str] = SESSION_SCOPES,
) -> tuple[str, KeyRecord]:
    """Make a key. Return its text, to be shown once, and its record."""
    id, secret = _random(12), _random(43)
    record = KeyRecord(id, tenant, scopes, mac(pepper, secret), now, expire_time)
    return f"samovar_{id}_{secret}", record


def _random(length: int) -> str:
    return "".join(secrets.choice(_BASE62) for _ in range(length))


def _parsed(evidence: Evidence) -> tuple[str, str] | None:
    values = evidence.values("authorization")
    if len(values) != 1:
        return None
    scheme, _, token = values[0].partition(" ")
    match = _KEY.fullmatch(token) if scheme.lower() == "bearer" else None
    return (match[1], match[2]) if match else None
