"""Why no call reaches a service, as a person is told."""

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import pytest
from contract.test_tls import certificate
from support.service import free_port
from support.timeouts import BOUND

from samovar.reach import Place
from samovar.transport import Shown

NO_ADDRESS = {
    "": "there is no address",
    "localhost": "such as localhost:50051",
    "http://127.0.0.1:50051": 'leave out "http://"',
    "grpcs://samovar.example:443": "samovar.example:443 is enough",
    "unix:": "names no socket",
    "127.0.0.1:": "host:port",
    "127.0.0.1:0": "there is no port 0",
    "127.0.0.1:65536": "there is no port 65536",
    "::1:50051": "host:port",
    "a b:1": "host:port",
    "\udcff:1": "what no address does",
}


@pytest.mark.parametrize("target", NO_ADDRESS)
def test_what_is_no_address_is_told_before_it_is_called(target: str) -> None:
    """The sentence says what an address looks like."""
    with pytest.raises(ValueError) as error:
        Place(target).check()
    assert NO_ADDRESS[target] in str(error.value)


@pytest.mark.parametrize(
    "target", ["127.0.0.1:1", "[::1]:1", "unix:/a", "unix:a", "dns:///a:1", "samovar.example:443"]
)
def test_what_is_an_address_is_taken(target: str) -> None:
    """Those of gRPC's own that this program does not look into, too."""
    Place(target).check()


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """Serve every connection with a function; give the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with ExitStack() as lines:
                while True:
                    try:
                        line = lines.enter_context(server.accept()[0])
                        line.settimeout(5.0)
                        answer(line)
                    except OSError:
                        return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def grpc_server(credentials: grpc.ServerCredentials | None = None) -> Iterator[str]:
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        if credentials is None:
            port = server.add_insecure_port("127.0.0.1:0")
        else:
            port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield f"localhost:{port}"
        finally:
            server.stop(None).wait()


def credentials_of(pair: tuple[Path, Path], *, ask: bool = False) -> grpc.ServerCredentials:
    public, private = (path.read_bytes() for path in pair)
    authority = public if ask else None
    return grpc.ssl_server_credentials([(private, public)], authority, ask)


def obstacle(
    target: str,
    *,
    tls: bool = False,
    patience: float = BOUND,
    roots: Path | None = None,
    **proxy: str,
) -> str:
    trusted = {"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(roots)} if roots else {}
    return Place(target, Shown(tls), patience, trusted | proxy).obstacle()


def test_nobody_who_listens_is_told_apart(directory: Path) -> None:
    """A host, a port and a socket that are not there, and a socket that was left behind."""
    assert "there is no host" in obstacle("no-such-host.invalid:1")
    assert "no samovard listens at 127.0.0.1:" in obstacle(f"127.0.0.1:{free_port()}")
    path = directory / "s"
    assert obstacle(f"unix:{path}").startswith(f"there is no socket {path}: ")
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    assert obstacle(f"unix:{path}").startswith(f"no samovard listens at {path}: ")


def test_a_service_that_can_be_called_is_no_obstacle(directory: Path) -> None:
    """In plain text and over TLS."""
    with grpc_server() as target:
        assert obstacle(target) == ""
    pair = certificate(directory, host="localhost")
    with grpc_server(credentials_of(pair)) as target:
        assert obstacle(target, tls=True, roots=pair[0]) == ""


def test_tls_on_one_side_only_is_told(directory: Path) -> None:
    """Which side it is, and what to set or to leave out."""
    with grpc_server() as target:
        assert obstacle(target, tls=True) == f"{target} does not speak TLS: leave out --tls"
    pair = certificate(directory, host="localhost")
    with grpc_server(credentials_of(pair)) as target:
        assert obstacle(target) == f"{target} takes calls over TLS only: add --tls"


def test_certificates_that_do_not_fit_are_told(directory: Path) -> None:
    """One that is not trusted, one of another host, and a caller who shows none."""
    pair = certificate(directory, host="localhost")
    with grpc_server(credentials_of(pair)) as target:
        assert "is not trusted (self-signed certificate)" in obstacle(target, tls=True)
        other = target.replace("localhost", "127.0.0.1")
        assert "IP address mismatch" in obstacle(other, tls=True, roots=pair[0])
    with grpc_server(credentials_of(pair, ask=True)) as target:
        assert "may want a certificate of its callers" in obstacle(target, tls=True, roots=pair[0])


def test_who_speaks_no_grpc_is_told() -> None:
    """A web server, a program that hangs up, one that says something else, and a silent one."""

    def web(line: socket.socket) -> None:
        line.recv(64)
        line.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with answering(web) as target:
        assert "speaks HTTP/1 and no gRPC" in obstacle(target)
    with answering(lambda line: line.shutdown(socket.SHUT_RDWR)) as target:
        assert obstacle(target) == f"what answers at {target} speaks no gRPC"
    with answering(lambda line: line.sendall(b"SSH-2.0-x\r\n")) as target:
        assert obstacle(target) == f"what answers at {target} speaks no gRPC"
    with answering(lambda line: None) as target:
        assert obstacle(target, patience=0.1) == f"{target} takes connections but does not answer"


def test_a_proxy_in_between_is_named() -> None:
    """One that refuses, one that is not there; hosts that need none are not asked about it."""
    target = "samovar.example:443"

    def refusing(line: socket.socket) -> None:
        assert line.recv(4096).startswith(b"CONNECT samovar.example:443 HTTP/1.1\r\n")
        line.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

    with answering(refusing) as proxy:
        told = obstacle(target, https_proxy=f"http://me:secret@{proxy}")
        assert told.startswith(
            f"the proxy {proxy} (https_proxy) answers 403 Forbidden for {target}"
        )
        assert "secret" not in told
    gone = f"127.0.0.1:{free_port()}"
    assert f"the proxy {gone} (http_proxy) cannot be reached" in obstacle(
        target, http_proxy=f"http://{gone}"
    )
    with grpc_server() as here:
        assert obstacle(here, http_proxy=f"http://{gone}") == ""
    proxy = f"http://{gone}"
    exempt = obstacle("no-such-host.invalid:1", http_proxy=proxy, no_proxy="a.example,.invalid")
    assert "there is no host" in exempt


def test_a_service_behind_a_proxy_is_reached_through_it() -> None:
    """As gRPC reaches it: with a tunnel."""

    def tunnel(line: socket.socket) -> None:
        line.recv(4096)
        line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        assert line.recv(64).startswith(b"PRI ")
        line.sendall(bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))

    with answering(tunnel) as proxy:
        assert obstacle("samovar.example:443", grpc_proxy=f"http://{proxy}") == ""
