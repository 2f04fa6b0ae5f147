"""The time until `Attach` yields the first event of a turn that is held."""

import time
import uuid
from collections.abc import Iterable

import grpc

from bench.figures import Figure, Part, timed
from bench.rounds import Sample
from bench.run import Run
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc

EVENTS = 1000  # of the turn that is held
DEADLINE = 60.0
SESSION = "bench"


def attached(run: Run) -> Part:
    """Measure from the call of `Attach` to the first event, for a turn that has ended."""
    sample = Sample()
    with run.serving_agent() as served, grpc.insecure_channel(served.address) as channel:
        stub = session_pb2_grpc.SessionStub(channel)
        for number in range(run.sizes.rounds):
            run.tell(f"round {number + 1} of {run.sizes.rounds}")
            sample.rounds.append(_round(stub, run.sizes.turns, sample))
    part = timed(
        f"From Attach to the first of {EVENTS} events, an agent that only writes",
        {"Samovar, a bare stub": sample},
    )
    part.figures = [
        Figure("attach to the first replayed event, p50", 1000 * sample.median, "ms", most=5.0)
    ]
    return part


def _round(stub: session_pb2_grpc.SessionStub, count: int, sample: Sample) -> list[float]:
    """Run a turn and attach to it `count` times. Return the seconds of each."""
    turn_id = str(uuid.uuid4())
    request = pb.SendRequest(
        session_id=SESSION,
        spec=pb.SessionSpec(),
        turn_id=turn_id,
        content=[pb.Content(text=f"events {EVENTS}")],
        event_options=pb.EventOptions(partial=True),
    )
    whole = _numbers(stub.Send(request, timeout=DEADLINE))
    seconds = []
    for _ in range(count):
        begin = time.perf_counter()
        call = stub.Attach(pb.AttachRequest(session_id=SESSION, turn_id=turn_id), timeout=DEADLINE)
        first = next(iter(call))
        seconds.append(time.perf_counter() - begin)
        replayed = [event.sequence for event in first.events] + _numbers(call)
        sample.wrong += replayed != whole or len(whole) < EVENTS
    return seconds


def _numbers(responses: Iterable[pb.SendResponse | pb.AttachResponse]) -> list[int]:
    return [event.sequence for response in responses for event in response.events]
