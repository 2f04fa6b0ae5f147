"""`python -m bench.bare`: a server that says at once what a turn of one event says.

What is left of a turn through the service when everything is taken away but gRPC.
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
    """Answers every message alike."""

    async def Send(  # type: ignore[override]  # the stub declares the generator form
        self, request: pb.SendRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> None:
        """Writes the three events in one response, as the service does what is ready at once."""
        await context.write(pb.SendResponse(events=EVENTS))

    async def CloseSession(  # the client closes what it opened
        self, request: pb.CloseSessionRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.CloseSessionResponse:
        """Has nothing to close."""
        return pb.CloseSessionResponse()


async def main() -> None:
    """Serves on a free port of loopback until it is told to end."""
    server = grpc.aio.server(options=OPTIONS)
    servicer = Bare()  # type: ignore[abstract]  # no more than the client calls
    session_pb2_grpc.add_SessionServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"listens on 127.0.0.1:{port} try: ", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
