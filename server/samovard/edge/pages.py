"""Page tokens: signed cursors that only this service, or a replica with its key, can make.

Knows nothing of what is listed.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable

import msgspec

from samovard.core.errors import RequestInvalid

LIFETIME = 3600.0


class _Page(msgspec.Struct, array_like=True, frozen=True):
    expires: float
    cursor: tuple[float, str]


class Pages:
    """Maker and reader of page tokens: cursor, expiry and an HMAC over both and their scope."""

    def __init__(self, key: bytes, clock: Callable[[], float]) -> None:
        self._key = key
        self._clock = clock

    def token(self, tenant: str, method: str, filter: str, cursor: tuple[float, str]) -> str:
        """Return the token of the page after a cursor."""
        page = msgspec.json.encode(_Page(self._clock() + LIFETIME, cursor))
        signed = self._signature(tenant, method, filter, page) + page
        return base64.urlsafe_b64encode(signed).decode()

    def cursor(self, tenant: str, method: str, filter: str, token: str) -> tuple[float, str] | None:
        """Return the cursor of a token, None if it is empty.

        Raise `RequestInvalid` for any fault.
        """
        if not token:
            return None
        try:
            signed = base64.urlsafe_b64decode(token.encode())
            signature, page = signed[:32], signed[32:]
            if hmac.compare_digest(signature, self._signature(tenant, method, filter, page)):
                read = msgspec.json.decode(page, type=_Page)
                if read.expires > self._clock():
                    return read.cursor
        except (binascii.Error, UnicodeError, msgspec.DecodeError):
            pass
        raise RequestInvalid(("page_token", "is not a recent token of this list"))

    def _signature(self, tenant: str, method: str, filter: str, page: bytes) -> bytes:
        scope = msgspec.json.encode((tenant, method, filter))
        return hmac.digest(self._key, scope + b"\n" + page, hashlib.sha256)
