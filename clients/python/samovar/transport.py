"""Where the service is and how to reach it. Knows gRPC's options."""

import re
from dataclasses import dataclass

import grpc

DEFAULT_TARGET = "127.0.0.1:50051"
_LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?|unix:.*")

OPTIONS: tuple[tuple[str, int], ...] = (
    # Retries are this client's: a stock retry would not know what was already read.
    ("grpc.enable_retries", 0),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # By default a lost service is looked for again after 1 s, then ever more seldom, up to
    # every 2 min; until then each call fails at once.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
)
#: A hundred open streams keep a connection from taking another call: what steers turns
#: has one of its own.
CONTROL_OPTIONS = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS with these PEM files' contents; without any, with the machine's own roots."""

    root_certificates: bytes | None = None
    private_key: bytes | None = None
    certificate_chain: bytes | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Transport:
    """An address, and what to show there."""

    target: str = DEFAULT_TARGET
    api_key: str | None = None
    tls: Tls | None = None

    def __post_init__(self) -> None:
        if self.api_key and self.tls is None and not _LOCAL.fullmatch(self.target):
            raise ValueError("an API key is only sent over TLS or within this machine: set tls")

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
        """Gives the options of a channel, for turns or for what steers them."""
        options: list[tuple[str, int | str]] = [*(CONTROL_OPTIONS if control else OPTIONS)]
        if self.tls is not None and self.tls.server_name is not None:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return options

    def metadata(self, session: str | None) -> tuple[tuple[str, str], ...]:
        """Gives the metadata of a call for a session."""
        return ("session-id", session or "default"), *self.authorization

    @property
    def authorization(self) -> tuple[tuple[str, str], ...]:
        """The metadata that shows who calls."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()


def tls_of(tls: "Tls | bool | None") -> Tls | None:
    """Gives TLS as it was asked for: True means with the machine's own roots."""
    if isinstance(tls, bool):
        return Tls() if tls else None
    return tls
