"""Find out why no call reaches a service, with plain sockets, once a call has failed.

Knows addresses, proxies and what each kind of server sends first. Knows no texts of gRPC's, which
change with its version.
"""

import base64
import contextlib
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

import grpc

from samovar.transport import PLAIN, Shown, Transport, proxy_of

#: The preface of an HTTP/2 client, with empty settings: each gRPC server answers with its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
SETTINGS = 4  # the type of a server's first frame, its fourth byte
ALERT = b"\x15\x03"
#: Addresses that gRPC resolves by itself; they are not examined.
OTHERS = ("dns:", "ipv4:", "ipv6:", "unix-abstract:", "vsock:", "xds:")
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]+\]|[^:/\[\]\s]+):([0-9]{1,5})", re.ASCII)


class _Obstacle(Exception):
    """Raised with what stands in the way, as the end of a sentence for a person."""


@dataclass(frozen=True, slots=True)
class Place:
    """The address of a service, and how it is called there."""

    target: str
    shown: Shown = PLAIN
    patience: float = 2.0  # seconds for each step
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)

    def check(self) -> None:
        """Raise `ValueError` if the target is no address."""
        if not self.target:
            raise ValueError("there is no address: --target is host:port or unix:/path")
        if not self.target.isprintable():
            raise ValueError("the address holds what no address does")
        if "://" in self.target and not self.target.startswith((*OTHERS, "unix:")):
            scheme, _, rest = self.target.partition("://")
            raise ValueError(f'{self.target} is a URL: leave out "{scheme}://", {rest} is enough')
        if self.target.startswith(OTHERS):
            return
        if self._path is not None:
            if not self._path:
                raise ValueError(f"{self.target} names no socket: unix:/path does")
        elif not (match := _HOST_AND_PORT.fullmatch(self.target)):
            hint = "" if ":" in self.target else f", such as {self.target}:50051"
            raise ValueError(f"{self.target} is no address: it must be host:port{hint}")
        elif not 0 < int(match[2]) < 65536:
            raise ValueError(f"{self.target}: there is no port {match[2]}")

    def obstacle(self) -> str:
        """Return what keeps calls from the service, in one sentence; empty if nothing is found."""
        try:
            if not self.target.startswith(OTHERS):
                self._look()
        except _Obstacle as found:
            return str(found)
        except OSError:
            return ""
        return ""

    @property
    def _path(self) -> str | None:
        kind, found, path = self.target.partition(":")
        return path.removeprefix("//") if found and kind == "unix" else None

    def _look(self) -> None:
        with self._connected() as line:
            if self.shown.tls:
                with self._secured(line) as secured:
                    first = _first_answer(secured, self.target)
            else:
                first = _first_answer(line, self.target)
        if first.startswith(b"HTTP/"):
            raise _Obstacle(
                f"what answers at {self.target} speaks HTTP/1 and no gRPC: another program, or a "
                "proxy in between"
            )
        if first[3:4] == bytes((SETTINGS,)):
            return
        if self.shown.tls and not first:
            # With TLS 1.3 the client only learns afterwards that its certificate was requested.
            raise _Obstacle(
                f"{self.target} hangs up: it may want a certificate of its callers, another one "
                "if one was shown: --tls-cert and --tls-key name it"
            )
        if not self.shown.tls and (first.startswith(ALERT) or self._takes_tls()):
            raise _Obstacle(f"{self.target} takes calls over TLS only: add --tls")
        raise _Obstacle(f"what answers at {self.target} speaks no gRPC")

    def _connected(self) -> socket.socket:
        if self._path is not None:
            return _unix(self._path, self.patience)
        host, _, port = self.target.rpartition(":")
        host = host.strip("[]")
        if not Transport(self.target).local and (proxy := proxy_of(self.target, self.environ)):
            variable = proxy.partition("=")[0]
            return _through(variable, urlsplit(self.environ[variable]), self.target, self.patience)
        return _tcp(host, int(port), self.target, self.patience)

    def _secured(self, line: socket.socket) -> ssl.SSLSocket:
        host = self.target.rpartition(":")[0].strip("[]")
        context = ssl.create_default_context(cafile=_roots(self.environ))
        context.set_alpn_protocols(["h2"])
        with contextlib.suppress(ValueError):  # reported before
            self.shown.show(context)
        try:
            return context.wrap_socket(line, server_hostname=host or "localhost")
        except ssl.SSLCertVerificationError as error:
            raise _Obstacle(
                f"the certificate of {self.target} is not trusted ({error.verify_message}): "
                "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH names a file of other authorities"
            ) from None
        except (ssl.SSLError, ConnectionError):
            raise _Obstacle(f"{self.target} does not speak TLS: leave out --tls") from None

    def _takes_tls(self) -> bool:
        """True if a TLS handshake succeeds, whatever the certificate is."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        try:
            with self._connected() as line, context.wrap_socket(line):
                return True
        except (_Obstacle, OSError):
            return False


def _roots(environ: Mapping[str, str]) -> str | None:
    """Return the file of authorities that gRPC trusts; None for the system's."""
    bundled = Path(grpc.__file__).parent / "_cython" / "_credentials" / "roots.pem"
    named = Path(environ.get("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH") or bundled)
    return str(named) if named.is_file() else None


def _first_answer(line: socket.socket, target: str) -> bytes:
    """Return the first bytes that a server answers with, none if it hangs up."""
    try:
        line.sendall(PREFACE)
        return line.recv(64)
    except TimeoutError:
        raise _Obstacle(f"{target} takes connections but does not answer") from None
    except (ssl.SSLError, ConnectionError):
        return b""


def _unix(path: str, patience: float) -> socket.socket:
    line = socket.socket(socket.AF_UNIX)
    line.settimeout(patience)
    try:
        line.connect(path)
    except OSError as error:
        line.close()
        raise _Obstacle(_why_not(error, path)) from None
    return line


def _tcp(host: str, port: int, where: str, patience: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), patience)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise _Obstacle(f"the name {host} cannot be looked up now") from None
        raise _Obstacle(f"there is no host {host}") from None
    except (OSError, UnicodeError) as error:
        raise _Obstacle(_why_not(error, where)) from None


def _why_not(error: Exception, where: str) -> str:
    start = '"samovard serve" starts one, --target names another'
    match error:
        case FileNotFoundError():
            return f"there is no socket {where}: {start}"
        case ConnectionRefusedError():
            return f"no samovard listens at {where}: {start}"
        case PermissionError():
            return f"{where} is open to other users only: call as the service's user"
        case TimeoutError():
            return f"{where} does not answer: a firewall, or the wrong address"
        case OSError():
            return f"{where} cannot be reached: {error.strerror or error}"
    return f"{where} is no address"


def _through(variable: str, proxy: SplitResult, target: str, patience: float) -> socket.socket:
    """Return a connection to the target through a proxy, opened as gRPC does it."""
    named = f"the proxy {proxy.hostname}:{proxy.port or 80} ({variable})"
    try:
        line = socket.create_connection((proxy.hostname or "", proxy.port or 80), patience)
    except (OSError, UnicodeError):
        raise _Obstacle(f"{named} cannot be reached: no_proxy names what needs none") from None
    asked = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.username is not None:
        shown = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
        asked.append(f"Proxy-Authorization: Basic {base64.b64encode(shown.encode()).decode()}")
    try:
        line.sendall("\r\n".join((*asked, "", "")).encode())
        status = line.recv(4096).partition(b"\r\n")[0].decode("latin-1").split()
    except OSError:
        status = []
    if status[1:2] != ["200"]:
        line.close()
        answer = f"answers {' '.join(status[1:])[:60]}" if status else "does not answer"
        raise _Obstacle(f"{named} {answer} for {target}: no_proxy names what needs none")
    return line
