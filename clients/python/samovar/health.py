"""Ask a service for its health, by `grpc.health.v1`.

Knows two messages of one field each, so that a probe needs no package and starts fast.
"""

import time
from collections.abc import Callable
from typing import Any, Literal, get_args

import grpc

from samovar.errors import DeadlineExceeded, SamovarError
from samovar.rejoin import broke
from samovar.transport import Transport

Health = Literal["unknown", "serving", "not serving", "unknown service"]
"""The health of a service, in the words of `grpc.health.v1`."""
#: The service of `Send` and `Attach`: it serves if turns are served.
SESSION = "samovar.v1.Session"
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
_STATUSES: tuple[Health, ...] = get_args(Health)
_CHECK = "/grpc.health.v1.Health/Check"


def check(transport: Transport, service: str, seconds: float) -> str:
    """Return the status of a service in a word, or a word for why there is none."""
    target, metadata = transport.target, transport.authorization
    options = transport.options(control=True)
    if transport.credentials is None:
        channel = grpc.insecure_channel(target, options)
    else:
        channel = grpc.secure_channel(target, transport.credentials, options)
    with channel:
        try:
            return str(call_of(channel)(service, timeout=seconds, metadata=metadata))
        except grpc.RpcError as error:
            name: str = error.code().name
            through = f" through the proxy {transport.proxy}" if transport.proxy else ""
            return name.lower().replace("_", " ") + through


def call_of(channel: Any) -> Any:
    """Return the call of a channel, synchronous or not, from a service's name to its `Health`."""
    return channel.unary_unary(_CHECK, _request, _status)


class Boot:
    """The schedule of repeated questions to a service that does not serve yet, within a time in
    seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._end = clock() + seconds
        self._pause = FIRST_PAUSE
        self._failure: SamovarError | None = None

    def left(self) -> float:
        """Return the seconds that are left."""
        return max(self._end - self._clock(), 0.001)

    def pause(self, found: Health | SamovarError) -> float | None:
        """Return the seconds after which to ask again, None once it serves.

        Raise a failure at once if it does not pass by itself, else the last one when the time is
        over.
        """
        if found == "serving":
            return None
        failure = found if isinstance(found, SamovarError) else self._not_yet(found)
        if isinstance(found, DeadlineExceeded):  # gRPC's own: the earlier failure explains it
            failure = self._failure or found
        elif isinstance(found, SamovarError) and not broke(found):
            raise found
        self._failure = failure
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        if self._clock() + pause >= self._end:
            raise failure
        return pause

    def _not_yet(self, found: Health) -> DeadlineExceeded:
        said = f"the service is {found} after {self._seconds:g} s"
        return DeadlineExceeded(said, code=grpc.StatusCode.DEADLINE_EXCEEDED)


def _request(service: str) -> bytes:
    name = service.encode()
    if len(name) > 127:
        raise ValueError("no service has so long a name")
    return b"\x0a" + bytes((len(name),)) + name if name else b""


def _status(response: bytes) -> Health:
    # A status of 0 is not written at all.
    number = response[1] if len(response) == 2 and response[0] == 8 else 0
    return _STATUSES[number] if number < len(_STATUSES) else "unknown"
