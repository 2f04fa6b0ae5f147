"""The address of the service and how to reach it.

Knows gRPC's options and the machine's proxies.
"""

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import NoReturn

import grpc

from samovar import errors, tracing
from samovar.tracing import Metadata

DEFAULT_TARGET = "127.0.0.1:50051"
#: This machine, in the forms that gRPC accepts.
_LOCAL = re.compile(
    r"unix(-abstract)?:.*"
    r"|((dns:(///)?)?localhost|(dns:(///)?|ipv4:)?127\.\d+\.\d+\.\d+"
    r"|(dns:(///)?|ipv6:)?\[::1\])(:\d+)?",
    re.IGNORECASE,
)
_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")
_PROXY = re.compile(r"http://(?:[^/]*@)?([^/]+)")
_HOST = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?)?\[?(.*?)\]?(?::\d+)?", re.IGNORECASE)

OPTIONS: tuple[tuple[str, int], ...] = (
    # Retries are this client's: a stock retry would not know what was already read.
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # By default gRPC retries a lost service after 1 s, then at growing intervals of up to 2 min;
    # until then each call fails at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
#: A hundred open streams keep a connection from taking another call: calls that control turns have
#: a connection of their own.
CONTROL_OPTIONS = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS with these PEM files' contents; without any, with the authorities that gRPC brings."""

    root_certificates: bytes | None = None
    private_key: bytes | None = field(default=None, repr=False)
    certificate_chain: bytes | None = None
    server_name: str | None = None


@dataclass(slots=True, repr=False)
class Transport:
    """An address, what to show there, and whether its client has been closed."""

    target: str = DEFAULT_TARGET
    api_key: str | None = None
    tls: Tls | None = None
    closed: bool = False

    def __post_init__(self) -> None:
        if self.api_key and self.tls is None and not self.local:
            raise ValueError("an API key is only sent over TLS or within this machine: set tls")

    def __str__(self) -> str:
        return f"{self.target}, closed" if self.closed else self.target

    def __reduce__(self) -> NoReturn:
        # Clients and turns compare it by identity: a channel belongs to one process, and a key is
        # no value.
        raise TypeError("a client cannot be pickled: make one in each process")

    @property
    def local(self) -> bool:
        """True if the target is on this machine."""
        return _LOCAL.fullmatch(self.target) is not None

    @property
    def proxy(self) -> str:
        """The proxy that calls go through and the variable that names it, empty for none."""
        return "" if self.local else proxy_of(self.target)

    @property
    def credentials(self) -> grpc.ChannelCredentials | None:
        """GRPC's channel credentials, None for plain text."""
        if self.tls is None:
            return None
        tls = self.tls
        return grpc.ssl_channel_credentials(
            tls.root_certificates, tls.private_key, tls.certificate_chain
        )

    def options(self, *, control: bool) -> list[tuple[str, int | str]]:
        """Return the options of a channel, for turns or for what steers them."""
        options: list[tuple[str, int | str]] = [*(CONTROL_OPTIONS if control else OPTIONS)]
        if self.local:
            # A proxy on another machine would look for the service on its own machine.
            options.append(("grpc.enable_http_proxy", 0))
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def metadata(self, session: str | None, trace: Metadata | None = None) -> Metadata:
        """Return the metadata of a call for a session, in the trace of the active span or this."""
        trace = tracing.metadata() if trace is None else trace
        return ("session-id", session or "default"), *self.authorization, *trace

    @property
    def authorization(self) -> Metadata:
        """The metadata that identifies the caller."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def error(self, broken: grpc.RpcError) -> errors.SamovarError:
        """Return the typed error of a call; one that broke on the way names its proxy."""
        return errors.ClientClosed() if self.closed else errors.of(broken, self.proxy)

    @contextlib.contextmanager
    def typed(self) -> Iterator[None]:
        """Raise gRPC's errors within the block as `SamovarError`."""
        if self.closed:
            raise errors.ClientClosed
        try:
            yield
        except grpc.RpcError as broken:
            raise self.error(broken) from None
        except (ValueError, grpc.aio.UsageError):  # a channel that was closed meanwhile
            if self.closed:
                raise errors.ClientClosed from None
            raise
        except asyncio.CancelledError:
            if self.closed and not cancelled():
                raise errors.ClientClosed from None
            raise


def cancelled() -> bool:
    """True if the running asyncio task was cancelled.

    grpc.aio raises `CancelledError` in whatever reads a call that is closed elsewhere, too.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def proxy_of(target: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the variable and address of the proxy that gRPC uses for a target, or nothing.

    Read as gRPC does it (grpcio 1.85.3): in lower case only, the first variable that is set,
    of the scheme `http` only. What else a proxy's URL holds, such as a password, is left out.
    """
    name = next(filter(environ.__contains__, _PROXIES), "")
    proxy = _PROXY.match(environ.get(name, ""))
    host = _HOST.fullmatch(target)
    exempt = environ.get("no_grpc_proxy", environ.get("no_proxy", "")).split(",")
    if proxy is None or (
        host and any(_covers(entry, host[1].lower()) for entry in exempt if entry)
    ):
        return ""
    return f"{name}={proxy[1]}"


def _covers(entry: str, host: str) -> bool:
    """True if an entry of `no_proxy` holds for a host: the end of its name, or its network."""
    with contextlib.suppress(ValueError):
        return ip_address(host) in ip_network(entry, strict=False)
    return host.endswith(entry.lower())


@dataclass(frozen=True, slots=True)
class Shown:
    """TLS as a command line asks for it: whether, and the PEM files of what the caller shows."""

    tls: bool = False
    certificate: str | None = None
    key: str | None = None

    def read(self) -> Tls | None:
        """Return the TLS to use, None for plain text. Raise `ValueError` if it cannot be."""
        if not self.certificate and not self.key:
            return tls_of(self.tls)
        if not self.certificate or not self.key:
            raise ValueError("a certificate needs its key: --tls-cert and --tls-key go together")
        if not self.tls:
            raise ValueError("a certificate is shown over TLS only: add --tls")
        self.show(ssl.create_default_context())
        with open(self.certificate, "rb") as chain, open(self.key, "rb") as key:
            return Tls(private_key=key.read(), certificate_chain=chain.read())

    def show(self, context: ssl.SSLContext) -> None:
        """Let a context show the certificate, if there is one. Raise `ValueError`."""
        if not self.certificate or not self.key:
            return
        try:
            # Otherwise Python asks for a key's password on the terminal.
            context.load_cert_chain(self.certificate, self.key, password=b"")
        except ssl.SSLError:
            raise ValueError(
                f"{self.certificate} and {self.key} are no certificate and its key, in PEM and "
                "without a password"
            ) from None
        except OSError as error:
            files = f"{self.certificate} or {self.key}"
            raise ValueError(f"{files} cannot be read: {error.strerror}") from None


PLAIN = Shown()


def tls_of(tls: "Tls | bool | None") -> Tls | None:
    """Return TLS as it was asked for: True means with gRPC's own authorities."""
    if isinstance(tls, bool):
        return Tls() if tls else None
    return tls
