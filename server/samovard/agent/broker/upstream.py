"""The way to the model's API: TLS, the operator's proxy, and connections of each tenant alone.

Knows how the API is reached. Knows nothing of requests or credentials.
"""

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined]  # no stub

import aiohttp
import structlog

API = "https://api.anthropic.com"
CONNECT_TIMEOUT = 10.0
#: Seconds without a byte of an answer; the CLI gives up after as many.
SILENCE_TIMEOUT = 300.0
IDLE_TIMEOUT = 30.0  # of a kept connection; less than load balancers keep theirs
READ_BUFFER = 64 << 10


_log = structlog.get_logger("samovard.broker")


@dataclass(frozen=True, slots=True)
class Upstream:
    """The API's address and the way there; the address of `api.anthropic.com` if it is empty.

    `traces` is where agents' spans go, empty if nowhere.
    """

    url: str = ""
    proxy: str = ""
    no_proxy: tuple[str, ...] = ()
    ca_bundle: Path | None = None
    traces: str = ""
    connect_timeout: float = CONNECT_TIMEOUT
    silence_timeout: float = SILENCE_TIMEOUT

    @property
    def base(self) -> str:
        """The API's address without a slash at its end."""
        return (self.url or API).rstrip("/")

    @property
    def via(self) -> str | None:
        """The proxy for the API's host, or None if it is reached directly."""
        return self.way(urlsplit(self.base).netloc)

    def way(self, host: str) -> str | None:
        """Return the proxy for a host, with its port or without, or None if there is none."""
        bypassed = proxy_bypass_environment(host, {"no": ",".join(self.no_proxy)})
        return self.proxy if self.proxy and not bypassed else None

    def tls(self) -> ssl.SSLContext:
        """Return a context that verifies names and certificates, with the system's authorities.

        Raise `OSError` if the additional authorities cannot be used.
        """
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.ca_bundle is not None:
            context.load_verify_locations(self.ca_bundle)
        return context


@dataclass(slots=True)
class _Tenant:
    session: aiohttp.ClientSession
    users: int = 0


@dataclass(slots=True)
class Clients:
    """An HTTP client for each tenant: an answer that is out of step never reaches another's agent.

    Used on one loop only.
    """

    upstream: Upstream
    _tls: ssl.SSLContext
    _tenants: dict[str, _Tenant] = field(default_factory=dict)
    _failing: bool = False

    def take(self, tenant: str) -> aiohttp.ClientSession:
        """Return the tenant's client. It must be given back once."""
        if tenant not in self._tenants:
            self._tenants[tenant] = _Tenant(self._session())
        self._tenants[tenant].users += 1
        return self._tenants[tenant].session

    async def give_back(self, tenant: str) -> None:
        """Close the tenant's client if this was its last user."""
        found = self._tenants[tenant]
        found.users -= 1
        if not found.users:
            del self._tenants[tenant]
            await found.session.close()

    def failed(self, error: Exception) -> None:
        """Log that the API was not reached; once until it answers again."""
        if not self._failing:
            self._failing = True
            # A number of TLS errors is not the system's.
            number = None if isinstance(error, ssl.SSLError) else getattr(error, "errno", None)
            why = os.strerror(number) if number else type(error).__name__
            _log.warning("broker.unreached", why=why)

    def answered(self) -> None:
        """Called when the API has answered."""
        self._failing = False

    def _session(self) -> aiohttp.ClientSession:
        limits = self.upstream
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._tls, limit=0, keepalive_timeout=IDLE_TIMEOUT, ttl_dns_cache=60
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("accept", "user-agent", "content-type"),
            read_bufsize=READ_BUFFER,
            timeout=aiohttp.ClientTimeout(
                total=None,
                sock_connect=limits.connect_timeout,
                sock_read=limits.silence_timeout,
            ),
        )
