"""A server that plays a script, for clients: it answers what the test prescribes."""

import threading
from collections.abc import Iterator, Sequence
from concurrent import futures
from contextlib import contextmanager
from typing import Any, cast

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from support.timeouts import BOUND

from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc


def started(**fields: Any) -> pb.Event:
    return pb.Event(sequence=1, turn_started=pb.TurnStarted(session_id="default", **fields))


def said(text: str, sequence: int = 2) -> pb.Event:
    delta = pb.TextDelta(message_id="m", text=text)
    return pb.Event(sequence=sequence, text_delta=delta)


def finished(result: str = "", **fields: Any) -> pb.Event:
    fields.setdefault("outcome", pb.TurnFinished.OUTCOME_COMPLETED)
    sequence = fields.pop("sequence", 3)
    return pb.Event(sequence=sequence, turn_finished=pb.TurnFinished(result=result, **fields))


class Refusal:
    """A step that ends a call with a reason of the service."""

    def __init__(
        self, reason: str, delay: float | None = None, code: int = 14, **metadata: str
    ) -> None:
        self.status = status_pb2.Status(code=code, message=f"it is {reason}")
        info = error_details_pb2.ErrorInfo(reason=reason, domain="samovar", metadata=metadata)
        self.add(info)
        if delay is not None:
            wait = duration_pb2.Duration()
            wait.FromMilliseconds(round(1000 * delay))
            self.add(error_details_pb2.RetryInfo(retry_delay=wait))

    def end(self, context: Any) -> None:
        details = (("grpc-status-details-bin", self.status.SerializeToString()),)
        context.set_trailing_metadata(details)
        code = next(c for c in grpc.StatusCode if c.value[0] == self.status.code)
        context.abort(code, self.status.message)

    def add(self, detail: Any) -> None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        self.status.details.append(packed)


class Break:
    """A step that ends a call as if it had been cut on the way, with a status that is not ours."""

    def __init__(self, code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE) -> None:
        self.code = code

    def end(self, context: Any) -> None:
        context.abort(self.code, "cut")


class Hold:
    """A step that answers nothing more until the call is over."""

    def end(self, context: Any) -> None:
        over = threading.Event()
        if context.add_callback(over.set):
            over.wait(BOUND)


Step = Refusal | Break | Hold | list[Any]


class Script:
    """Servicer that plays one step for each call of `Send` or `Attach`, and keeps the requests."""

    # What a test needs of these, it defines.
    Interrupt: Any = None
    Respond: Any = None
    GetSession: Any = None
    ListSessions: Any = None
    CloseSession: Any = None
    GetUsage: Any = None

    def __init__(self, *steps: Step, hold: bool = False) -> None:
        self.steps = list(steps)
        self.hold = hold
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.gone = threading.Event()

    def Send(self, request: pb.SendRequest, context: Any) -> Iterator[pb.SendResponse]:
        return (pb.SendResponse(events=[event]) for event in self._play(request, context))

    def Attach(self, request: pb.AttachRequest, context: Any) -> Iterator[pb.AttachResponse]:
        return (pb.AttachResponse(events=[event]) for event in self._play(request, context))

    def _play(self, request: Any, context: Any) -> Iterator[pb.Event]:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        context.add_callback(self.gone.set)
        step = self.steps.pop(0)
        for part in step if isinstance(step, list) else [step]:
            if isinstance(part, pb.Event):
                yield part
            else:
                part.end(context)
        if self.hold:
            self.gone.wait(BOUND)


@contextmanager
def playing(
    script: Script, calls: int = 4, port: int = 0, options: Sequence[tuple[str, int]] = ()
) -> Iterator[str]:
    """Run a script, for so many calls at once, on a port or any."""
    with futures.ThreadPoolExecutor(calls) as threads:
        server = grpc.server(threads, options=options)
        session_pb2_grpc.add_SessionServicer_to_server(cast(Any, script), server)
        port = server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait(BOUND)
