"""Asks a service for its health, as `grpc.health.v1` tells it.

Knows two messages of one field each, so that a probe needs no package and starts fast.
"""

import grpc

from samovar.transport import Tls, Transport

STATUSES = ("unknown", "serving", "not serving", "unknown service")
_CHECK = "/grpc.health.v1.Health/Check"


def check(target: str, service: str, tls: Tls | None, seconds: float) -> str:
    """Gives the status of a service in a word, or in a word why there is none."""
    transport = Transport(target, tls=tls)
    options = transport.options(control=True)
    if transport.credentials is None:
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, transport.credentials, options)
    with channel:
        call = channel.unary_unary(_CHECK, _request, _status)
        try:
            return str(call(service, timeout=seconds))
        except grpc.RpcError as error:
            name: str = error.code().name
            through = f" through the proxy {transport.proxy}" if transport.proxy else ""
            return name.lower().replace("_", " ") + through


def _request(service: str) -> bytes:
    name = service.encode()
    if len(name) > 127:
        raise ValueError("no service has so long a name")
    return b"\x0a" + bytes((len(name),)) + name if name else b""


def _status(response: bytes) -> str:
    # A status of 0 is not written at all.
    number = response[1] if len(response) == 2 and response[0] == 8 else 0
    return STATUSES[number] if number < len(STATUSES) else STATUSES[0]
