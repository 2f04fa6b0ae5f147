"""`python -m bench.bare`: a server that sends the events of a short turn at once.

It shows what is left of a turn's time when everything except gRPC is taken away.
"""

import asyncio
from typing import Any

import grpc

from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc
from samovard.edge.server import OPTIONS

EVENTS = (
    pb.Event(sequence=1, turn_started=pb.TurnStarted()),
    pb.Event(sequence=2, text_delta=pb.TextDelta(text="OK")),
    pb.Event(
        sequence=3,
        turn_finished=pb.TurnFinished(outcome=pb.TurnFinished.OUTCOME_COMPLETED, result="OK"),
    ),
)


class Bare(session_pb2_grpc.SessionServicer):
    """A service that answers every message alike."""

    async def Send(  # type: ignore[override]  # the stub declares the generator form
        self, request: pb.SendRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        """Write the three events in one response, as the service does with what is ready at
        once.
        """
        await context.write(pb.SendResponse(events=EVENTS))

    async def CloseSession(  # the client closes what it opened
        self, request: pb.CloseSessionRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.CloseSessionResponse:
        """Return at once: there is nothing to close."""
        return pb.CloseSessionResponse()


async def main() -> None:
    """Serve on a free port of loopback until told to end."""
    server = grpc.aio.server(options=OPTIONS)
    servicer = Bare()  # type: ignore[abstract]  # no more than the client calls
    session_pb2_grpc.add_SessionServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listens on 127.0.0.1:{port} try: ", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
