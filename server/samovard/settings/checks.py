"""Constraints between settings: each contradiction is a sentence that names a key.

Knows the sections. Knows nothing of the sources of values.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from samovard.settings import clouds
from samovard.settings.auth import Auth
from samovard.settings.profile import Mcp, Profile
from samovard.settings.sections import (
    LOOPBACK,
    Agent,
    Credentials,
    Isolation,
    Pool,
    Server,
    Telemetry,
    open_files,
)

MAX_TMP_PATH = 80  # with a longer path the CLI puts its inbox into the shared temp directory
MAX_ROOT = MAX_TMP_PATH - len("/") - 32 - len("/tmp")  # bytes, of the path of `agent.root`
OWN_FILES = 128  # open files beside those of callers: the store, probes, a few processes
HEADROOM = 64  # calls of a tenant beside those of its turns: interrupts, listings
MAX_SOCKET = 107  # bytes, of the path of a unix socket on Linux

#: Levels that a mechanism never reaches.
_TOO_LOW = {"landlock": ("strong",), "none": ("basic", "strong")}

_PORT = r"(0|[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_LISTEN = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-fA-F:]{2,39}\]):" + _PORT, re.ASCII)
_COLLECTOR = re.compile(r"https?://[A-Za-z0-9._:/\[\]-]{1,512}")
_PROXY = re.compile(
    r"https?://([A-Za-z0-9._-]{1,253}|\[[0-9a-fA-F:]{2,39}\])(:" + _PORT + ")?/?", re.ASCII
)
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
_HOST = re.compile(r"[A-Za-z0-9.*_:/\[\]-]{1,253}")
_HEADER = re.compile(r"[a-z0-9-]{1,128}")
_VALUE = re.compile(r"[\x20-\x7e]*")
_FRAMING = ("connection", "content-length", "host", "te", "trailer", "transfer-encoding", "upgrade")
#: Other network addresses to which the credential would be sent.
_UPSTREAM = re.compile(r"https://|http://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?(/|$)")


def exposure(server: Server, auth: Auth) -> list[str]:
    """Return the problems that would expose the service, or keep it from being served."""
    problems = []
    if not _is_address(server.listen):
        problems.append("server.listen: must be `host:port` or `unix:/path`")
    if "none" in auth.methods and len(auth.methods) > 1:
        problems.append("auth.methods: none cannot stand beside another method")
    if "none" in auth.methods and not server.local:
        problems.append("auth.methods: none needs server.listen on loopback or a unix socket")
    if server.tls == "off" and not server.local:
        problems.append("server.tls: off needs server.listen on loopback or a unix socket")
    if server.health_listen and not _is_address(server.health_listen):
        problems.append("server.health_listen: must be `host:port` or `unix:/path`")
    problems += _tokens(auth)
    problems += _certificates(server, auth)
    problems += _operator(server, auth)
    for name in ("listen", "operator_listen", "health_listen"):
        kind, _, path = getattr(server, name).partition(":")
        if kind == "unix" and (excess := len(os.fsencode(path)) - MAX_SOCKET) > 0:
            problems.append(
                f"server.{name}: its path is {excess} bytes too long, "
                f"a socket's may have {MAX_SOCKET}"
            )
    if server.tls != "files":
        files = ("tls_certificate", "tls_key", "tls_client_ca")
        unused = [name for name in files if getattr(server, name) is not None]
        problems += [f"server.{name}: needs server.tls = files" for name in unused]
    elif not (server.tls_certificate and server.tls_key):
        problems.append("server.tls: files needs server.tls_certificate and server.tls_key")
    if server.connections > open_files() - OWN_FILES:
        problems.append(
            f"server.max_connections: must be {OWN_FILES} less than the open files that the "
            f"service may have, which are {open_files()} (ulimit -n)"
        )
    if server.event_hold_bytes > server.event_hold_total:
        problems.append("server.event_hold_bytes: is more than server.event_hold_total")
    total = server.drains_for + server.drain_grace + server.stop_budget
    if server.platform_limit is not None and total > server.platform_limit:
        problems.append(
            f"server.platform_limit: drain_wait, drain_grace and stop_budget take {total:g} s"
        )
    return problems


def _is_address(text: str) -> bool:
    return text.startswith("unix:/") or _LISTEN.fullmatch(text) is not None


def _tokens(auth: Auth) -> list[str]:
    """Return the problems that keep tokens from naming tenants."""
    if "jwt" not in auth.methods:
        return ["auth.jwt: needs jwt in auth.methods"] if auth.jwt != type(auth.jwt)() else []
    needed = ("issuer", "audience", "jwks", "algorithm", "tenant_claim")
    problems = [
        f"auth.jwt.{name}: is needed with jwt in auth.methods"
        for name in needed
        if not getattr(auth.jwt, name)
    ]
    if auth.jwt.jwks and not auth.jwt.jwks.startswith("/") and not _UPSTREAM.match(auth.jwt.jwks):
        problems.append("auth.jwt.jwks: must be https, http on loopback, or an absolute path")
    return problems


def _certificates(server: Server, auth: Auth) -> list[str]:
    """Return the problems that keep client certificates from naming tenants."""
    mtls = auth.mtls
    if "mtls" not in auth.methods:
        return ["auth.mtls: needs mtls in auth.methods"] if mtls != type(mtls)() else []
    problems = []
    if server.tls_client_ca is None or server.listen.startswith("unix:"):
        problems.append("auth.methods: mtls needs server.tls_client_ca, and no unix socket")
    if not mtls.trust_domain and not mtls.names:
        problems.append("auth.mtls: needs trust_domain or names")
    if not mtls.tenant and (len(auth.methods) < 2 or not mtls.trust_domain or mtls.names):
        problems.append("auth.mtls.tenant: false needs another method, trust_domain and no names")
    return problems


def _operator(server: Server, auth: Auth) -> list[str]:
    """Return the problems that would expose the operator's listener to others."""
    listen = server.operator_listen
    if not listen or listen.startswith("unix:/"):
        return []
    problems = []
    if not _LISTEN.fullmatch(listen):
        problems.append("must be `unix:/path` or `host:port`")
    if "none" in auth.methods:
        problems.append("must be a unix socket with auth.methods = none")
    if not LOOPBACK.fullmatch(listen) and server.tls_client_ca is None:
        problems.append("needs server.tls = files and server.tls_client_ca beyond loopback")
    return [f"server.operator_listen: {problem}" for problem in problems]


class Whole(Protocol):
    """What of all settings is checked together."""

    @property
    def agent(self) -> Agent:
        """How agents are run."""

    @property
    def credentials(self) -> Credentials:
        """Where credentials come from."""

    @property
    def isolation(self) -> Isolation:
        """The walls around agents."""

    @property
    def pool(self) -> Pool:
        """How many processes there are, and for how long."""

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """The profiles by name."""

    @property
    def required_isolation(self) -> str:
        """The least level of isolation that is accepted."""

    @property
    def server(self) -> Server:
        """What is listened on, and its bounds."""

    @property
    def telemetry(self) -> Telemetry:
        """What is exported."""

    @property
    def tenant_calls(self) -> int:
        """How many calls of one tenant there may be at once."""

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the store."""


def rest(settings: Whole) -> list[str]:
    """Return what contradicts itself in the rest."""
    problems = []
    credentials = settings.credentials
    if settings.pool.default_profile not in settings.profiles:
        problems.append(f"pool.default_profile: there is no {settings.pool.default_profile}")
    if credentials.provider in ("file", "mount") and credentials.path is None:
        problems.append(
            f"credentials.path: is needed with credentials.provider = {credentials.provider}"
        )
    if (credentials.provider == "command") != bool(credentials.command):
        problems.append("credentials.command: belongs to credentials.provider = command")
    if credentials.command and not credentials.command[0].startswith("/"):
        problems.append("credentials.command: must begin with the absolute path of a program")
    if credentials.delivery == "environment" and not credentials.allow_environment:
        problems.append("credentials.delivery: environment needs credentials.allow_environment")
    if credentials.kind == "oauth_token" and credentials.oauth_token_owner != "operator":
        problems.append("credentials.kind: oauth_token needs credentials.oauth_token_owner")
    if not settings.url.startswith("sqlite:///"):
        problems.append("state.url: must begin with sqlite:///")
    if credentials.upstream and not _UPSTREAM.match(credentials.upstream):
        problems.append("credentials.upstream: must be https, or http on loopback")
    if settings.server.max_turn_streams >= settings.tenant_calls:
        problems.append(
            "server.max_turn_streams: must be less than the calls of one tenant, which are "
            f"{settings.tenant_calls} (pool.slots, pool.queue_limit and {HEADROOM})"
        )
    mechanism, least = settings.isolation.mechanism, settings.required_isolation
    if least in _TOO_LOW.get(mechanism, ()):
        problems.append(
            f"isolation.mechanism: {mechanism} does not reach isolation.require, which is {least}"
        )
    problems += _network(credentials)
    for name, profile in settings.profiles.items():
        if profile.allow_rewrite and profile.permission_policy != "ask" and not profile.allow_ask:
            problems.append(
                f"profiles.{name}.allow_rewrite: needs permission_policy = ask or allow_ask"
            )
        for server, mcp in profile.mcp.items():
            problems += [
                f"profiles.{name}.mcp.{server}: {what}"
                for what in (*_mcp(server, mcp), *_secret(mcp, credentials.delivery))
            ]
        problems += [f"profiles.{name}.{what}" for what in _cloud(profile, credentials)]
        problems += [
            f"profiles.{name}.network: {what}" for what in _offline(profile, credentials.delivery)
        ]
    problems += _telemetry(settings.telemetry)
    if settings.agent.root is not None and (excess := length(settings.agent.root) - MAX_ROOT) > 0:
        problems.append(
            f"agent.root: its path is {excess} bytes too long, it may have {MAX_ROOT}: "
            "name a shorter directory, or none, and one is made that fits state.directory"
        )
    return problems


def length(path: Path) -> int:
    """Return the length of a path in bytes, once it is absolute."""
    return len(os.fsencode(path.absolute()))


def _offline(profile: Profile, delivery: str) -> list[str]:
    """Return what a profile needs of the network, if it is to reach the broker alone."""
    network = profile.reaches(delivery)
    if (network == "hosts") != bool(profile.hosts):
        return ["hosts belongs to a list of hosts, and no other network does"]
    if network == "open":
        return []
    if profile.cloud is not None:
        return [f"broker has no way to {profile.cloud}: leave it out, or set it to open"]
    if delivery != "broker":
        return [f"{network} needs credentials.delivery = broker"]
    # The CLI asks the API itself whether a page may be fetched.
    named = ["the tool WebFetch"] if "WebFetch" in profile.tools else []
    if network == "broker":
        named += [
            f"the MCP server {name}"
            for name, mcp in profile.mcp.items()
            if mcp.url and not mcp.secret_headers
        ]
    return [f"{what} needs the network: set it to open" for what in named]


def _cloud(profile: Profile, credentials: Credentials) -> list[str]:
    """Return the problems of a profile's cloud. They show no value: it may be a secret."""
    cloud, given = profile.cloud, profile.cloud_environment
    if cloud is None:
        unused = {"cloud_environment": given, "cloud_secrets": profile.cloud_secrets}
        return [f"{name}: needs cloud" for name, value in unused.items() if value]
    problems = []
    if not credentials.allow_environment:
        problems.append(f"cloud: {cloud} needs credentials.allow_environment")
    if any(mcp.secret_headers for mcp in profile.mcp.values()):
        problems.append("cloud: secret_headers of MCP servers need the broker")
    for name, value in given.items():
        what = f"cloud_environment.{name}: "
        if not clouds.allowed(cloud, name):
            problems.append(f"{what}is not a variable of {cloud}")
        elif clouds.secret(name):
            problems.append(f"{what}is a secret, which belongs in cloud_secrets")
        elif not value.isascii() or not value.isprintable():
            problems.append(f"{what}must be printable ASCII")
        elif "_URL" in name and not _UPSTREAM.match(value):
            problems.append(f"{what}must be https, or http on loopback")
    return problems


def _network(credentials: Credentials) -> list[str]:
    """Return the problems of agents' network access. They show no value: it may be a secret."""
    problems = []
    if credentials.proxy and not _PROXY.fullmatch(credentials.proxy):
        problems.append("proxy: must be `http://host:port`, without a user name or password")
    if credentials.no_proxy and not credentials.proxy:
        problems.append("no_proxy: needs credentials.proxy")
    if not all(_HOST.fullmatch(host) for host in credentials.no_proxy):
        problems.append("no_proxy: must be a list of hosts")
    return [f"credentials.{problem}" for problem in problems]


def _mcp(name: str, server: Mcp) -> list[str]:
    """Return the problems of an MCP server. They show no value: it may be a secret."""
    problems = []
    if not _SERVER.fullmatch(name) or "__" in name:
        problems.append("its name must be letters, digits, `-` and single `_`")
    if bool(server.command) == bool(server.url):
        problems.append("needs either command or url")
    if server.url and not _UPSTREAM.match(server.url):
        problems.append("url must be https, or http on loopback")
    if server.headers and not server.url:
        problems.append("headers need url")
    if (server.args or server.env) and not server.command:
        problems.append("args and env need command")
    texts = (server.command, *server.args, *server.env.values(), *server.headers.values())
    # The CLI would put variables of its own in its place.
    if any("${" in text for text in (*texts, server.url)):
        problems.append("no value may hold `${`")
    return problems


def _secret(server: Mcp, delivery: str) -> list[str]:
    """Return the problems of a server to which the broker brings headers."""
    if not server.secret_headers:
        return []
    problems = []
    if delivery != "broker":
        problems.append("secret_headers need credentials.delivery = broker")
    if not server.url:
        problems.append("secret_headers need url")
    names = [name.lower() for name in (*server.headers, *server.secret_headers)]
    if len(set(names)) < len(names):
        problems.append("a header is given twice")
    if not all(_HEADER.fullmatch(name) and name not in _FRAMING for name in names):
        problems.append("a header's name must be letters, digits and `-`, and not the connection's")
    if not all(_VALUE.fullmatch(value) for value in server.headers.values()):
        problems.append("a header's value must be printable ASCII")
    return problems


def _telemetry(telemetry: Telemetry) -> list[str]:
    urls = {"endpoint": telemetry.endpoint, "agent_endpoint": telemetry.agent_endpoint}
    problems = [
        f"telemetry.{name}: must be a URL, `http://host:port` or `https://host:port`"
        for name, url in urls.items()
        if url and not _COLLECTOR.fullmatch(url)
    ]
    listen = telemetry.prometheus_listen
    if listen and not _LISTEN.fullmatch(listen):
        problems.append("telemetry.prometheus_listen: must be `host:port`")
    if telemetry.agent_endpoint and not telemetry.endpoint:
        problems.append("telemetry.agent_endpoint: needs telemetry.endpoint")
    return problems
