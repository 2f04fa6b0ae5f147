"""Which requests and headers pass the broker, and how a refusal looks.

Decides on texts alone. Knows nothing of connections, credentials or tenants.
"""

import enum
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from multidict import CIMultiDict

from samovard.agent.credentials import Credential, Kind

MAX_BODY = 32 << 20  # the API's own limit
MAX_HEADERS = 32 << 10  # bytes of all headers of a request
PATHS = ("/v1/messages", "/v1/messages/count_tokens")

# Matched on the path as it was sent: decoded, `%6d` would pass for `m`.
_QUERY = re.compile(r"(\?[A-Za-z0-9._~=&%-]{0,256})?")
_VALUE = re.compile(r"[\x20-\x7e\t]*")
# Capabilities of the API and of the CLI come with headers of these names.
_PREFIXES = ("anthropic-", "x-claude-code-", "x-stainless-")
_REQUEST = frozenset({"accept", "content-type", "traceparent", "user-agent", "x-app"})
_RESPONSE = frozenset({"content-type", "request-id", "retry-after", "x-should-retry"})
_RATE_LIMITS = "anthropic-ratelimit-"


class Why(enum.Enum):
    """Why a request is not sent on; the values are words for a metric."""

    NOT_FOUND = "not_found"
    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    CLOSED = "closed"
    NO_CREDENTIAL = "no_credential"
    RENEWED = "renewed"


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer of the broker's own, in the shape of the API's errors."""

    status: int
    kind: str
    message: str
    retry: bool = False

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        error = {"type": self.kind, "message": self.message}
        return json.dumps({"type": "error", "error": error}).encode()


REFUSALS = {
    Why.NOT_FOUND: Refusal(404, "not_found_error", "not found"),
    Why.MALFORMED: Refusal(400, "invalid_request_error", "bad request"),
    Why.TOO_LARGE: Refusal(413, "request_too_large", "the request is too large"),
    Why.TOO_MANY: Refusal(429, "rate_limit_error", "too many requests at once", retry=True),
    Why.CLOSED: Refusal(403, "permission_error", "no turn is running"),
    Why.NO_CREDENTIAL: Refusal(401, "authentication_error", "there is no credential"),
    # The CLI repeats a 503 by itself, so that no body has to be kept here.
    Why.RENEWED: Refusal(503, "overloaded_error", "the credential was renewed", retry=True),
}


def path_of(method: str, target: str, token: str) -> str | None:
    """Return the API's path and query that a request is for, or None if it may not pass.

    `target` is the request's target as it was sent, `token` the first part of its path.
    """
    prefix, _, rest = target[1:].partition("/")
    known = hmac.compare_digest(prefix.encode(errors="replace"), token.encode())
    if not known or method != "POST" or not target.startswith("/"):
        return None
    path, query = rest.partition("?")[0], "".join(rest.partition("?")[1:])
    if f"/{path}" not in PATHS or not _QUERY.fullmatch(query):
        return None
    return f"/{path}{query}"


def fault_of(headers: Mapping[str, str], length: int | None) -> Why | None:
    """Return why a request with these headers may not pass, or None; `length` is its body's."""
    if "upgrade" in headers or "transfer-encoding" in headers or length is None:
        return Why.MALFORMED
    if not all(_VALUE.fullmatch(value) for value in headers.values()):
        return Why.MALFORMED
    if sum(len(name) + len(value) for name, value in headers.items()) > MAX_HEADERS:
        return Why.MALFORMED
    return Why.TOO_LARGE if length > MAX_BODY else None


def to_api(headers: Mapping[str, str], length: int, credential: Credential) -> CIMultiDict[str]:
    """Return the headers of the request to the API, with the credential in its place."""
    passed = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() in _REQUEST or name.lower().startswith(_PREFIXES)
    )
    passed["Content-Length"] = str(length)
    # Bodies pass unchanged, so they must come in a form that the agent can read.
    passed["Accept-Encoding"] = "identity"
    if credential.kind is Kind.API_KEY:
        passed["x-api-key"] = credential.value.reveal()
    else:
        passed["Authorization"] = f"Bearer {credential.value.reveal()}"
    return passed


def to_agent(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """Return the headers of the API's answer that pass: no cookies, no ids of organizations."""
    return CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() in _RESPONSE or name.lower().startswith(_RATE_LIMITS)
    )
