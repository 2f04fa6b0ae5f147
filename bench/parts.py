"""The parts of a run, in their order. A new one needs a function and a line here."""

from collections.abc import Callable

from bench import (
    broker,
    calls,
    contention,
    faults,
    latency,
    launchline,
    lists,
    memory,
    replay,
    stream,
    telemetry,
)
from bench.figures import Part
from bench.run import Run

PARTS: dict[str, Callable[[Run], Part]] = {
    "turns": latency.real,
    "idle": latency.idle,
    "added": latency.added,
    "broker": broker.measured,
    "calls": calls.counted,
    "events": stream.streamed,
    "attach": replay.attached,
    "telemetry": telemetry.costs,
    "interrupts": faults.interrupts,
    "deaths": faults.deaths,
    "contention": contention.measured,
    "bytes": memory.measured,
    "lists": lists.measured,
    "launch-line": launchline.measured,
}
