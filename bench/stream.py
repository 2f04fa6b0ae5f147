"""Events per second and CPU time per event: an agent that only writes, read in three ways."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc

from bench.contenders import Contender, Samovar, Sdk
from bench.figures import Figure, Part, Row
from bench.programs import Served
from bench.rounds import Make, Sample, interleaved
from bench.run import Run
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc

STUB, CLIENT, SDK = "Samovar, a bare stub", "Samovar, its client", "Agent SDK"


@dataclass(slots=True)
class Stub:
    """`Send` by the generated stub alone, which only counts."""

    address: str
    events: int = 0
    _channel: grpc.Channel = field(init=False)

    def __enter__(self) -> "Stub":
        self._channel = grpc.insecure_channel(self.address)
        return self

    def __exit__(self, *error: object) -> None:
        self._channel.close()

    def turn(self, text: str) -> str:
        """Send a message, and count every event."""
        request = pb.SendRequest(
            session_id="bench",
            spec=pb.SessionSpec(),
            content=[pb.Content(text=text)],
            event_options=pb.EventOptions(partial=True),
        )
        self.events, answer = 0, ""
        for response in session_pb2_grpc.SessionStub(self._channel).Send(request, timeout=600):
            self.events += len(response.events)
            last = response.events[-1]
            if last.HasField("turn_finished"):
                answer = last.turn_finished.result
        return answer


def streamed(run: Run) -> Part:
    """Measure one stream of events of 300 bytes, end to end."""
    agent, events = run.agent, run.sizes.events
    with run.serving_agent() as served:
        made: dict[str, Make] = {
            STUB: lambda: Stub(served.address),
            CLIENT: lambda: Samovar(served.address),
            SDK: lambda: Sdk(agent, (home := run.fresh_directory()), run.variables(home)),
        }
        cpu: list[float] = []
        samples = interleaved(made, run.sizes.rounds, _measure(events, served, cpu), run.tell)
    rates = {name: events / sample.median for name, sample in samples.items()}
    part = Part("Events of 300 bytes on one stream", ["", "events/s", "rounds"], unit="events/s")
    for name, sample in samples.items():
        ordered = sorted(events / seconds for seconds in sample.medians)
        part.rows.append(
            Row(name, [f"{rates[name]:,.0f}", f"{ordered[0]:,.0f} to {ordered[-1]:,.0f}"])
        )
        part.wrong += sample.wrong
    part.bars = rates
    part.figures = [
        Figure("events end to end", rates[STUB], "events/s", least=100_000),
        Figure("server CPU per event", 1e6 * statistics.median(cpu), "microseconds", most=8),
        Figure("events against the Agent SDK", rates[STUB] / rates[SDK], "x", least=2),
        Figure("events to the Python client", rates[CLIENT], "events/s"),
    ]
    return part


def _measure(count: int, served: Served, cpu: list[float]) -> Callable[[Contender, Sample], None]:
    """Return a function that measures one turn of so many events, and the service's CPU time in
    it.
    """

    def measure(contender: Contender, sample: Sample) -> None:
        contender.turn("Say OK")
        before, begin = served.program.cpu_seconds(), time.perf_counter()
        answer = contender.turn(f"events {count}")
        sample.rounds.append([time.perf_counter() - begin])
        # The deltas, and around them at most the events that every turn has.
        seen = getattr(contender, "events", 0)
        sample.wrong += answer != "sent" or not count <= seen <= count + 5
        if isinstance(contender, Stub):
            cpu.append((served.program.cpu_seconds() - before) / count)

    return measure
