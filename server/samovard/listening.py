"""The addresses that the servers listen on and their TLS files, from the settings.

Knows addresses and files. Knows nothing of what is served.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from samovard.edge import server
from samovard.edge.certificates import Certificates, Files
from samovard.edge.server import Listener, Servers
from samovard.settings import Server as Edge
from samovard.settings import Settings
from samovard.settings.checks import MAX_SOCKET, length
from samovard.telemetry.recorder import Recorder


def check_addresses(settings: Settings) -> None:
    """Raise `CannotListen` if an address is in use; called before the CLI is tested for a
    second.
    """
    edge = settings.server
    addresses = {
        "listen": edge.listen,
        "operator_listen": edge.operator_listen,
        "health_listen": edge.probes,
    }
    for name, address in addresses.items():
        try:
            server.check_free(address)
        except server.CannotListen as error:
            what = _neighbours(edge, name)
            raise server.CannotListen(f"{error}: stop it, or set server.{name}{what}") from error


def _neighbours(edge: Edge, name: str) -> str:
    """Return why two services whose ports are adjacent want the same one."""
    if name == "health_listen" and not edge.health_listen:
        return " (probes are asked at the port after server.listen by default)"
    if name == "listen" and not edge.listen.startswith(server.UNIX):
        return " (a samovard at the port before has its probes there, by its server.health_listen)"
    return ""


def certificates(settings: Settings, recorder: Recorder) -> Certificates | None:
    """Return the certificates of the TLS listeners, None without TLS. Raise `CannotServe`."""
    edge = settings.server
    if edge.tls != "files" or edge.tls_key is None or edge.tls_certificate is None:
        return None
    files = Files(edge.tls_certificate, edge.tls_key, edge.tls_client_ca)
    return Certificates(files, time.time, recorder)


class Addresses(NamedTuple):
    """The addresses of the service, as gRPC spells them."""

    callers: str
    probes: str


async def listen(
    settings: Settings, certificates: Certificates | None, servers: Servers
) -> Addresses:
    """Start every server and return the addresses for callers and probes. Raise `CannotListen`."""
    address = settings.server.listen
    probed = Listener(settings.server.probes or f"unix:{_socket(settings, 'health.sock')}")
    with _naming("listen"):
        credentials = certificates.credentials() if certificates else None
        port = server.listen(servers.public, Listener(address, credentials))
    with _naming("operator_listen"):
        server.listen_for_owner(servers.operator, _operator_listener(settings, certificates))
    with _naming("health_listen"):
        probing = server.listen(servers.probes, probed)
    await asyncio.gather(servers.public.start(), servers.operator.start(), servers.probes.start())
    return Addresses(_with(port, address), _with(probing, probed.address))


@contextmanager
def _naming(setting: str) -> Iterator[None]:
    """Raise `CannotListen` with the name of the setting that would choose another address."""
    try:
        yield
    except server.CannotListen as error:
        raise server.CannotListen(f"{error}: set server.{setting}") from error


def _with(port: int, address: str) -> str:
    return address if not port else f"{address.rpartition(':')[0]}:{port}"


def _operator_listener(settings: Settings, certificates: Certificates | None) -> Listener:
    address = settings.server.operator_listen or f"unix:{_socket(settings, 'operator.sock')}"
    if certificates is None or address.startswith(server.UNIX):
        return Listener(address)
    return Listener(address, certificates.credentials())


def _socket(settings: Settings, name: str) -> Path:
    """Return the path of a socket: beside the sessions if the one in the state directory is too
    long.

    The state directory then has a link to it, which clients resolve.
    """
    path = settings.directory.absolute() / name
    if length(path) <= MAX_SOCKET:
        return path
    path.unlink(missing_ok=True)
    path.symlink_to(settings.root / path.name)
    return settings.root / path.name
