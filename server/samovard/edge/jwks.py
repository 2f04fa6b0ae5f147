"""The public keys of an issuer, by URL or file, reloaded at a bounded rate.

Knows JWKS. Knows nothing of tokens.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

FRESH = 300.0  # seconds for which a set is used without a reload
PAUSE = 30.0  # least seconds between two reloads
KEPT = 3600.0  # seconds for which the last good set is used while none can be read
TIMEOUT = 5.0
MAX_BYTES = 1 << 20
MIN_RSA_BITS = 2048

_log = structlog.get_logger("samovard.edge")


class KeySet:
    """Keys by their id. `read` returns the bytes of a JWKS; `monotonic` the time in seconds."""

    def __init__(
        self, read: Callable[[], Awaitable[bytes]], algorithm: str, monotonic: Callable[[], float]
    ) -> None:
        self._read = read
        self._algorithm = algorithm
        self._monotonic = monotonic
        self._keys: Mapping[str, PublicKey] = {}
        self._read_at = self._tried_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def get(self, id: str) -> PublicKey | None:
        """Return a key, None if there is no such key or the set is too old. Never raise."""
        now = self._monotonic()
        due = now - self._read_at >= FRESH or id not in self._keys
        if due and self._reading is None and now - self._tried_at >= PAUSE:
            self._tried_at = now
            self._reading = asyncio.create_task(self._refresh(now), name="read JWKS")
        if self._reading is not None and id not in self._keys:
            # A caller who leaves must not end the read that others wait for.
            await asyncio.shield(self._reading)
        return self._keys.get(id) if self._monotonic() - self._read_at < KEPT else None

    async def _refresh(self, now: float) -> None:
        try:
            async with asyncio.timeout(TIMEOUT):
                keys = parse(await self._read(), self._algorithm)
            self._keys, self._read_at = keys, now
        except (OSError, ValueError, TimeoutError, aiohttp.ClientError, RecursionError) as error:
            _log.warning("jwks.failed", error=type(error).__name__)
        finally:
            self._reading = None


def reader(place: str) -> Callable[[], Awaitable[bytes]]:
    """Return a function that reads a JWKS from a URL or a path."""
    if place.startswith(("https://", "http://")):
        return partial(_fetch, place)
    return partial(asyncio.to_thread, Path(place).read_bytes)


async def _fetch(url: str) -> bytes:
    data = bytearray()
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise ValueError
        async for chunk in response.content.iter_chunked(64 << 10):
            data += chunk
            if len(data) > MAX_BYTES:
                raise ValueError
    return bytes(data)


def parse(data: bytes, algorithm: str) -> Mapping[str, PublicKey]:
    """Return the keys of a JWKS that are of an algorithm. Raise `ValueError` if there is none."""
    found = msgspec.json.decode(data, type=_Set)
    keys = {jwk["kid"]: key for jwk in found.keys if (key := _key(jwk, algorithm)) is not None}
    if not keys:
        raise ValueError
    return keys


class _Set(msgspec.Struct):
    keys: list[dict[str, Any]]


def _key(jwk: dict[str, Any], algorithm: str) -> PublicKey | None:
    usable = jwk.get("use", "sig") == "sig" and jwk.get("alg", algorithm) == algorithm
    if not usable or not isinstance(jwk.get("kid"), str):
        return None
    # Any: each has the method, their common class has not.
    kinds: Mapping[str, Any] = {"ES256": ECAlgorithm, "RS256": RSAAlgorithm, "EdDSA": OKPAlgorithm}
    try:
        key = kinds[algorithm].from_jwk(jwk)
    except Exception:
        # Of another kind, or broken: PyJWT and cryptography have many errors for it.
        return None
    return key if _fits(key) else None


def _fits(key: object) -> bool:
    """True for a public key of an accepted kind and size; a private key is not accepted."""
    if isinstance(key, ec.EllipticCurvePublicKey):
        return isinstance(key.curve, ec.SECP256R1)
    if isinstance(key, rsa.RSAPublicKey):
        return key.key_size >= MIN_RSA_BITS
    return isinstance(key, ed25519.Ed25519PublicKey)
