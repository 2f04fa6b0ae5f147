"""The gRPC servers: one for callers, one for the operator, one for probes.

Knows gRPC's options and which services each server has. Knows nothing of what they do.
"""

import asyncio
import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from samovar.v1 import pool_pb2, pool_pb2_grpc, session_pb2, session_pb2_grpc
from samovard.edge.health import MAX_WATCHERS, Health
from samovard.edge.pool_service import PoolService
from samovard.edge.session_service import SessionService
from samovard.edge.validate import MAX_REQUEST

#: Every name is read by grpcio 1.85.
OPTIONS: tuple[tuple[str, int], ...] = (
    # By default a second server binds the same port and takes half of the calls.
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.max_allowed_incoming_connections", 1000),
    # The usual excess over 8 MiB gets a reason; what is larger is refused unread.
    ("grpc.max_receive_message_length", MAX_REQUEST + 64 * 1024),
    # What is not read yet stays with its sender, but for 64 KiB of each call.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
    ("grpc.server_handshake_timeout_ms", 10_000),
    # A client that vanished is noticed within 30 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # What really ends it (measured, grpcio 1.85): by default a ping may stay unanswered for 60 s.
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # With the default, a client that pings every 30 s is sent away.
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
    # Without a call a connection ends; stock clients make another one with their next call.
    ("grpc.max_connection_idle_ms", 60_000),
)

UNIX = "unix:"
OPERATOR_CALLS = 64 + MAX_WATCHERS
PROBE_CALLS = 64
#: Options of the server for probes, in place of the usual ones.
PROBE_OPTIONS = dict(OPTIONS) | {
    "grpc.max_receive_message_length": 4 * 1024,
    "grpc.max_allowed_incoming_connections": 64,
    # The call of a caller that takes no answer lasts until its connection ends (grpcio 1.85).
    "grpc.max_connection_age_ms": 10 * 60_000,
    "grpc.max_connection_age_grace_ms": 60_000,
}
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"


Interceptors = Sequence[grpc.aio.ServerInterceptor]  # type: ignore[type-arg]  # in stubs only


@dataclass(frozen=True, slots=True)
class Listener:
    """The place where a server listens: an address as gRPC spells it, and credentials or None."""

    address: str
    credentials: grpc.ServerCredentials | None = None


@dataclass(frozen=True, slots=True)
class TransportBounds:
    """Bounds on what callers may use: concurrent calls and connections, and the age of a connection
    in seconds; None for no bound.

    `longest` is how long a call may last, in seconds: a call continues on a connection that grew
    too old.
    """

    calls: int
    connections: int = 1000
    age: float | None = None
    longest: float = 0.0

    def options(self) -> tuple[tuple[str, int], ...]:
        """Return the options of a server with these bounds."""
        options = dict(OPTIONS) | {"grpc.max_allowed_incoming_connections": self.connections}
        if self.age is not None:
            options["grpc.max_connection_age_ms"] = _milliseconds(self.age)
            options["grpc.max_connection_age_grace_ms"] = _milliseconds(self.longest)
        return tuple(options.items())


def _milliseconds(seconds: float) -> int:
    # The value is an int32; its maximum stands for no limit.
    return min(round(1000 * seconds), 2**31 - 1)


@dataclass(frozen=True, slots=True)
class Servers:
    """Every server of a service."""

    public: grpc.aio.Server
    operator: grpc.aio.Server
    probes: grpc.aio.Server

    async def stop(self) -> None:
        """Stop all of them at once."""
        servers = (self.public, self.operator, self.probes)
        await asyncio.gather(*(server.stop(None) for server in servers))


class CannotListen(Exception):
    """Raised if an address is in use or cannot be bound."""


def public(
    service: SessionService,
    health: Health,
    interceptors: Interceptors,
    *,
    reflects: bool,
    bounds: TransportBounds,
) -> grpc.aio.Server:
    """Return the server for callers: `Session`, health, and reflection if asked for."""
    server = grpc.aio.server(
        interceptors=interceptors,
        options=bounds.options(),
        maximum_concurrent_rpcs=bounds.calls,
    )
    session_pb2_grpc.add_SessionServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    if reflects:
        _reflect(server, session_pb2.DESCRIPTOR.services_by_name["Session"].full_name)
    return server


def operator(service: PoolService, health: Health, interceptors: Interceptors) -> grpc.aio.Server:
    """Return the operator's server: `Pool`, health and reflection."""
    server = grpc.aio.server(
        interceptors=interceptors, options=OPTIONS, maximum_concurrent_rpcs=OPERATOR_CALLS
    )
    pool_pb2_grpc.add_PoolServicer_to_server(service, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    _reflect(server, pool_pb2.DESCRIPTOR.services_by_name["Pool"].full_name)
    return server


def probes(health: Health, interceptors: Interceptors) -> grpc.aio.Server:
    """Return the server for probes: health and nothing else."""
    server = grpc.aio.server(
        interceptors=interceptors,
        options=tuple(PROBE_OPTIONS.items()),
        maximum_concurrent_rpcs=PROBE_CALLS,
    )
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    return server


def listen_for_owner(server: grpc.aio.Server, listener: Listener) -> int:
    """Bind a server, to a unix socket in a way that lets only its owner open it; see `listen`."""
    # Set before the socket exists: once it is bound, another user's connection might already be
    # queued.
    before = os.umask(0o177)
    try:
        return listen(server, listener)
    finally:
        os.umask(before)


def listen(server: grpc.aio.Server, listener: Listener) -> int:
    """Bind a server and return its port, 0 for a unix socket. Raise `CannotListen`.

    A stale socket is replaced; the socket is removed when the server stops.
    """
    path = listener.address.removeprefix(UNIX)
    if path != listener.address and not os.path.isdir(os.path.dirname(path)):
        raise CannotListen(f"there is no directory for {listener.address}")
    if path != listener.address and _is_served(path):
        raise CannotListen(f"another program serves {listener.address}")
    try:
        if listener.credentials is not None:
            port = server.add_secure_port(listener.address, listener.credentials)
        else:
            port = server.add_insecure_port(listener.address)
    except RuntimeError as error:
        raise CannotListen(f"cannot listen on {listener.address}: is it in use?") from error
    return 0 if listener.address.startswith(UNIX) else port


def check_free(address: str) -> None:
    """Raise `CannotListen` if another program listens on an address, `host:port` or `unix:/path`.

    Port 0 and an empty address are free. Errors that only binding reveals are left to `listen`.
    """
    host, _, port = address.rpartition(":")
    if address.startswith(UNIX):
        if _is_served(address.removeprefix(UNIX)):
            raise CannotListen(f"another program serves {address}")
    elif port.isdigit() and int(port) > 0:
        try:
            found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise CannotListen(f"cannot find {host}: {error.strerror}") from error
        if any(map(_is_taken, found)):
            raise CannotListen(f"{address} is in use by another program")


def _is_taken(found: tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]) -> bool:
    family, kind, protocol, _, address = found
    try:
        with socket.socket(family, kind, protocol) as sock:
            # The same option as gRPC's: what a closed connection left behind is no obstacle.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def _is_served(path: str) -> bool:
    """True if a program listens on a unix socket, which grpcio would take away (1.85.3)."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError as error:
            # Busy, or not open to us: then not ours to replace. For a path that is too long Python
            # itself raises an error without a number; binding reports that better.
            return error.errno is not None
        return True


def _reflect(server: grpc.aio.Server, *names: str) -> None:
    health = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
    reflection.enable_server_reflection((*names, health, REFLECTION), server)
