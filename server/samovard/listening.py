"""Where the servers listen, and with which TLS files, by the settings.

Knows addresses and files. Knows nothing of what is served.
"""

import asyncio
import time
from pathlib import Path

import grpc

from samovard.edge import server
from samovard.edge.certificates import Certificates, Files
from samovard.edge.server import Listener
from samovard.settings import Settings
from samovard.settings.checks import MAX_SOCKET, length
from samovard.telemetry.recorder import Recorder


def check_addresses(settings: Settings) -> None:
    """Raise `CannotListen` if an address is in use, before the CLI is tested for a second."""
    edge = settings.server
    addresses = {"listen": edge.listen, "operator_listen": edge.operator_listen}
    for name, address in addresses.items():
        try:
            server.check_free(address)
        except server.CannotListen as error:
            raise server.CannotListen(f"{error}: stop it, or set server.{name}") from error


def certificates(settings: Settings, recorder: Recorder) -> Certificates | None:
    """Return what TLS listeners serve, or None without TLS of our own. Raise `CannotServe`."""
    edge = settings.server
    if edge.tls != "files" or edge.tls_key is None or edge.tls_certificate is None:
        return None
    files = Files(edge.tls_certificate, edge.tls_key, edge.tls_client_ca)
    return Certificates(files, time.time, recorder)


async def listen(
    settings: Settings,
    certificates: Certificates | None,
    public: grpc.aio.Server,
    operator: grpc.aio.Server,
) -> str:
    """Start both servers and return the address for callers. Raise `CannotListen`."""
    address = settings.server.listen
    try:
        credentials = certificates.credentials() if certificates else None
        port = server.listen(public, Listener(address, credentials))
    except server.CannotListen as error:
        raise server.CannotListen(f"{error}: set server.listen") from error
    try:
        server.listen_for_owner(operator, _operator_listener(settings, certificates))
    except server.CannotListen as error:
        raise server.CannotListen(f"{error}: set server.operator_listen") from error
    await asyncio.gather(public.start(), operator.start())
    return address if not port else f"{address.rpartition(':')[0]}:{port}"


def _operator_listener(settings: Settings, certificates: Certificates | None) -> Listener:
    address = settings.server.operator_listen or f"unix:{_operator_socket(settings)}"
    if certificates is None or address.startswith(server.UNIX):
        return Listener(address)
    return Listener(address, certificates.credentials())


def _operator_socket(settings: Settings) -> Path:
    """Return where the operator's socket is to be: beside the sessions if its path is too long.

    Then a link stands in the state directory, which clients resolve.
    """
    path = settings.directory.absolute() / "operator.sock"
    if length(path) <= MAX_SOCKET:
        return path
    path.unlink(missing_ok=True)
    path.symlink_to(settings.root / path.name)
    return settings.root / path.name
