"""The listeners' TLS files: checked before they are served, and reloaded when they change.

Knows PEM files and gRPC's server credentials. Knows nothing of settings or signals.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import structlog

from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from cryptography import x509

Stamp = tuple[tuple[int, ...] | None, ...]

_log = structlog.get_logger("samovard.certificates")


class CannotServe(Exception):
    """The files cannot be served; the message names the setting of the file and the fault."""


@dataclass(frozen=True, slots=True)
class Served:
    """The bytes of a checked set of files; `not_after` is the end of the server's certificate."""

    chain: bytes = field(repr=False)
    key: bytes = field(repr=False)
    authority: bytes | None = field(repr=False)
    not_after: datetime

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        """Return the files as gRPC takes them."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.chain)], self.authority)


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of PEM files: the certificate with its chain, its key, and the CA of clients."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def stamp(self) -> Stamp:
        """Return a value that changes whenever a file is replaced or written; never raise."""
        return tuple(map(_stamp, (self.certificate, self.key, self.client_ca)))

    def read(self) -> Served:
        """Read and check the files. Raise `CannotServe` if gRPC could not serve them."""
        # Imported here: only a service with TLS files of its own needs it.
        from cryptography.hazmat.primitives import serialization

        chain, key = _read("tls_certificate", self.certificate), _read("tls_key", self.key)
        authority = _read("tls_client_ca", self.client_ca) if self.client_ca else None
        leaf = _certificates("tls_certificate", chain)[0]
        if authority is not None:
            _certificates("tls_client_ca", authority)
        try:
            belongs = (
                serialization.load_pem_private_key(key, None).public_key() == leaf.public_key()
            )
        except Exception as error:
            # ValueError, TypeError for an encrypted key, and errors of cryptography's own.
            raise CannotServe("server.tls_key: is not a PEM file of a plain private key") from error
        if not belongs:
            raise CannotServe("server.tls_key: does not belong to server.tls_certificate")
        return Served(chain, key, authority, leaf.not_valid_after_utc)


class Certificates:
    """What the listeners serve now. Thread-safe.

    A broken or missing file is reported once, and the previous files stay in use. `clock` returns
    the wall time in seconds. The constructor raises `CannotServe`.
    """

    def __init__(self, files: Files, clock: Callable[[], float], recorder: Recorder) -> None:
        self._files = files
        self._clock = clock
        self._recorder = recorder
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._refusal = ""
        self._stamp = files.stamp()
        self._served = files.read()

    @property
    def expires_in(self) -> float:
        """Return the seconds until the served certificate expires, negative once it has."""
        return self._served.not_after.timestamp() - self._clock()

    def credentials(self) -> grpc.ServerCredentials:
        """Return credentials for one listener; every listener needs its own.

        gRPC asks before each handshake, and keeps the last answer per listener.
        """
        given = self.look()

        def fetch() -> grpc.ServerCertificateConfiguration | None:
            nonlocal given
            if (now := self.look()) is given:
                return None
            configuration = now.configuration()
            given = now
            return configuration

        return grpc.dynamic_ssl_server_credentials(
            given.configuration(),
            fetch,  # type: ignore[arg-type]  # the stubs know no None; grpcio documents it
            require_client_authentication=self._files.client_ca is not None,
        )

    def look(self) -> Served:
        """Return the files to be served now; read them if they changed. Never raise."""
        with self._lock:
            stamp = self._files.stamp()
            if stamp != self._stamp:
                # Taken before the files are read: the next look then sees a change made in between.
                self._stamp = stamp
                try:
                    self._take()
                except CannotServe as error:
                    self._refuse(str(error))
            return self._served

    def reload(self) -> None:
        """Read the files in any case. Raise `CannotServe` if the previous files stay in use."""
        with self._lock:
            self._stamp = self._files.stamp()
            self._take()

    def _take(self) -> None:
        found = self._files.read()
        self._refusal = ""
        if found != self._served:
            self._served = found
            not_after = found.not_after.isoformat()
            self._tell(partial(_log.info, "certificate.renewed", not_after=not_after))

    def _refuse(self, error: str) -> None:
        if error != self._refusal:
            self._refusal = error
            self._tell(partial(incident, self._recorder, "certificate.refused", error=error))

    def _tell(self, told: Callable[[], object]) -> None:
        # Recorders belong to the event loop. A handshake may come after the loop was closed.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(told, context=self._context)


def _stamp(path: Path | None) -> tuple[int, ...] | None:
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _read(setting: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CannotServe(f"server.{setting}: {path}: {error.strerror}") from error


def _certificates(setting: str, pem: bytes) -> "list[x509.Certificate]":
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CannotServe(f"server.{setting}: is not a PEM file of certificates") from error
