"""Addresses that are taken already, before anything is started."""

import socket
from typing import Any

import pytest

from samovard import listening
from samovard.edge.server import CannotListen
from samovard.settings import given


@pytest.mark.parametrize(
    ("server", "said"),
    [
        (
            {"listen": "127.0.0.1:{taken}"},
            "set server.listen (a samovard at the port before has its probes there",
        ),
        (
            {"listen": "127.0.0.9:{before}"},
            "set server.health_listen (probes are asked at the port after server.listen",
        ),
        (
            {"listen": "127.0.0.1:0", "health_listen": "127.0.0.1:{taken}"},
            "stop it, or set server.health_listen",
        ),
    ],
)
def test_services_on_ports_side_by_side_are_told_what_to_set(
    server: dict[str, Any], said: str
) -> None:
    """By default probes are asked at the next port, where the next service is."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        named = {key: value.format(taken=port, before=port - 1) for key, value in server.items()}
        with pytest.raises(CannotListen) as error:
            listening.check_addresses(given({"server": named}))
    assert str(error.value).startswith(f"127.0.0.1:{port} is in use by another program: ")
    assert said in str(error.value)
    assert str(error.value).endswith(("set server.health_listen", ")"))
