"""The cost of telemetry: a service that exports everything, one that does not, one without it."""

import random
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from bench import programs
from bench.contenders import Samovar
from bench.figures import Figure, Part, milliseconds, timed
from bench.programs import Served
from bench.rounds import WARM_UP, Sample
from bench.run import Run

ON, OFF, WITHOUT = "exporting every turn", "exporting nothing", "without the calls"
SHORTER = 2  # times the rounds: a small difference needs many of them
EXPORTED = 1.2  # seconds until everything is exported, for each idle second of the run


@dataclass(slots=True)
class Measured:
    """A service, its client, and the time and CPU time of its turns, by round."""

    served: Served
    client: Samovar
    turns: Sample = field(default_factory=Sample)
    cpu: list[float] = field(default_factory=list)  # seconds per turn

    def round(self, count: int, settle: float) -> None:
        """Run so many turns, and wait until their telemetry is exported."""
        before, seconds = self.served.program.cpu_seconds(), []
        for _ in range(count):
            begin = time.perf_counter()
            self.turns.wrong += self.client.turn("Say OK") != "OK"
            seconds.append(time.perf_counter() - begin)
        time.sleep(settle)
        self.turns.rounds.append(seconds)
        self.cpu.append((self.served.program.cpu_seconds() - before) / count)


def costs(run: Run) -> Part:
    """Measure turns of one event, one directly after another, on three services in turn."""
    rounds, count = SHORTER * run.sizes.rounds, run.sizes.turns
    directory = run.fresh_directory()
    with (
        programs.program(["bench.sink"], directory, "listens on") as sink,
        _services(run, sink.said.split()[-1]) as services,
    ):
        settle, shuffled = EXPORTED * run.sizes.idle, random.Random(1)
        for number in range(rounds):
            for name in shuffled.sample(sorted(services), len(services)):
                run.tell(f"round {number + 1} of {rounds}: {name}")
                services[name].round(count, settle)
    spans = int((directory / "said").read_text().split()[-1])
    return _part(services, spans / (rounds * count + WARM_UP))


@contextmanager
def _services(run: Run, collector: str) -> Iterator[dict[str, Measured]]:
    """Run the three services, each with a conversation on a warm process."""
    exports = f'endpoint = "http://{collector}"\nsample_ratio = 1.0\n'
    with ExitStack() as stack:

        def measured(telemetry: str = "", module: str = "samovard") -> Measured:
            served = stack.enter_context(run.serving_agent(telemetry=telemetry, module=module))
            client = stack.enter_context(Samovar(served.address))
            for _ in range(WARM_UP):
                client.turn("Say OK")
            return Measured(served, client)

        yield {ON: measured(exports), OFF: measured(), WITHOUT: measured(module="bench.without")}


def _part(services: dict[str, Measured], spans: float) -> Part:
    part = timed(
        "A turn of one event of an agent that only writes, with and without telemetry",
        {name: measured.turns for name, measured in services.items()},
    )
    part.columns = [*part.columns, "server CPU, ms", "rounds' CPU, ms"]
    for row, measured in zip(part.rows, services.values(), strict=True):
        row.cells = [
            *row.cells,
            milliseconds(statistics.median(measured.cpu)),
            _range(measured.cpu),
        ]
    on, off, without = (services[name] for name in (ON, OFF, WITHOUT))
    part.figures = [
        Figure("telemetry, server CPU more of a turn", _more(on.cpu, off.cpu), "ms", most=0.5),
        Figure("telemetry, a turn takes longer, p50", _more(*_medians(on, off)), "ms"),
        Figure("spans exported for each turn", spans, least=2),
        _within("off against no calls, server CPU of a turn", off.cpu, without.cpu),
        _within("off against no calls, a turn, p50", *_medians(off, without)),
    ]
    return part


def _medians(of: Measured, to: Measured) -> tuple[list[float], list[float]]:
    return of.turns.medians, to.turns.medians


def _more(of: list[float], to: list[float]) -> float:
    """Return the median of the rounds' own differences, in milliseconds."""
    return 1000 * statistics.median(a - b for a, b in zip(of, to, strict=True))


def _within(name: str, of: list[float], to: list[float]) -> Figure:
    """Return a difference as a figure, bounded by how much rounds of the same service differ."""
    most = round(1000 * max(_spread(of), _spread(to)), 3)
    return Figure(name, abs(_more(of, to)), "ms", most=most)


def _spread(rounds: list[float]) -> float:
    """Return the interquartile range of the rounds."""
    first, _, third = statistics.quantiles(rounds, n=4)
    return third - first


def _range(rounds: list[float]) -> str:
    return f"{milliseconds(min(rounds))} to {milliseconds(max(rounds))}"
