"""The machine's HTTP proxies: never for a service on this machine, and named where they fail."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.scripted_server import Script, finished, playing, said, started

import samovar
from samovar.health import check
from samovar.transport import Transport, proxy_of

REMOTE = "samovar.example:50051"


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """Run a proxy that refuses; yield its address and the lines that it was asked with."""
    asked: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            while True:
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                with caller:
                    # A caller whose time is over leaves before it has asked.
                    if said := caller.recv(4096):
                        asked.append(said.decode().splitlines()[0])
                        caller.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


def show(target: str) -> str:
    with samovar.Client(target) as client, pytest.raises(samovar.CallBroken) as error:
        client.get_session("s")
    return str(error.value)


def drain(target: str) -> str:
    with samovar.Operator(target) as operator, pytest.raises(samovar.CallBroken) as error:
        operator.drain("acme")
    return str(error.value)


def probe(target: str) -> str:
    return check(Transport(target), "", 30.0)


@pytest.mark.parametrize("variable", ["http_proxy", "https_proxy", "grpc_proxy"])
@pytest.mark.parametrize("call", [show, drain, probe])
def test_an_error_names_the_proxy_that_it_met(
    variable: str, call: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which variable, and where it leads; a password in it is not shown."""
    with proxy() as (address, asked):
        monkeypatch.setenv(variable, f"http://name:secret@{address}")
        message = call(REMOTE)
    assert asked == [f"CONNECT {REMOTE} HTTP/1.1"]
    assert f"{variable}={address}" in message
    assert "secret" not in message


@pytest.mark.parametrize("call", [show, drain, probe])
def test_no_proxy_for_what_is_on_this_machine(
    call: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """A proxy is neither asked nor named for loopback and unix sockets, in any form."""
    with proxy() as (address, asked):
        for variable in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(variable, f"http://{address}")
        for target in LOCAL:
            assert address not in call(target.format(directory))
        with playing(Script([started(), said("hi"), finished("hi")])) as target:
            with samovar.Client(target) as client:
                assert client.ask("Hello").text == "hi"
    assert asked == []


LOCAL = [
    "127.0.0.1:1",
    "localhost:1",
    "LocalHost:1",
    "[::1]:1",
    "dns:localhost:1",
    "dns:///localhost:1",
    "dns:///127.0.0.1:1",
    "ipv4:127.0.0.1:1",
    "ipv6:[::1]:1",
    "unix:{}/no.sock",
    "unix-abstract:samovar-no-such",
]


@pytest.mark.parametrize("target", ["localhost.example:1", "127.0.0.1.example:1", "10.0.0.1:1"])
def test_what_only_looks_local_is_not(target: str) -> None:
    """A key does not go there without TLS, and a proxy is used."""
    assert not Transport(target).local
    with pytest.raises(ValueError, match="TLS"):
        Transport(target, api_key="k")


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, ""),
        ({"grpc_proxy": "", "http_proxy": "http://a:1"}, ""),
        ({"http_proxy": "a:1"}, ""),
        ({"http_proxy": "https://a:1"}, ""),
        ({"http_proxy": "http://u:p@s@a:1/x"}, "http_proxy=a:1"),
        ({"http_proxy": "http://a:1", "https_proxy": "http://b:2"}, "https_proxy=b:2"),
        ({"https_proxy": "http://b:2", "grpc_proxy": "http://c:3"}, "grpc_proxy=c:3"),
        ({"HTTP_PROXY": "http://a:1"}, ""),
        ({"http_proxy": "http://a:1", "no_proxy": "x,.Example"}, ""),
        ({"http_proxy": "http://a:1", "no_proxy": "x", "no_grpc_proxy": "example"}, ""),
        ({"http_proxy": "http://a:1", "no_proxy": ""}, "http_proxy=a:1"),
    ],
)
def test_the_proxy_that_is_named_is_the_one_that_is_used(
    environ: dict[str, str], named: str
) -> None:
    """The variables are read as gRPC reads them."""
    assert proxy_of(REMOTE, environ) == named


@pytest.mark.parametrize(
    "host", ["10.1.2.3:1", "ipv4:10.1.2.3:1", "[fd00::1]:1", "ipv6:[fd00::1]:1"]
)
def test_networks_are_exempt_too(host: str) -> None:
    """An address is in no_proxy if its network is."""
    environ = {"http_proxy": "http://a:1", "no_proxy": "192.0.2.0/24,10.0.0.0/8,fd00::/16"}
    assert proxy_of(host, environ) == ""
    assert proxy_of(host, environ | {"no_proxy": "192.0.2.0/24,2001:db8::/32"}) == "http_proxy=a:1"
