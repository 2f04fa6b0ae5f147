"""The duration of a turn: the real CLI on the stand-in, and what the service adds on its own."""

from bench import against, programs
from bench.contenders import Pipe, Samovar, Sdk, Spawned
from bench.figures import Figure, Part, timed
from bench.launchline import line_of, plain
from bench.rounds import Make, Sample, arriving, interleaved, ratio, turns
from bench.run import Run

SPAWNED, RESUMED = "spawn per turn", "spawn per turn, --resume"
BARE = "gRPC alone"
SDK, PIPE, SAMOVAR = "Agent SDK", "bare pipe", "Samovar"
GAP = 0.01  # seconds between the arrivals of two turns
IDLE_PART = 40  # one of so many turns has idle time before it


def contenders(run: Run, address: str) -> dict[str, Make]:
    """Return the four ways to an answer of the real CLI."""
    alone, floor = plain(run.cli, run.upstream), line_of(run.cli, run.upstream)
    return {
        SPAWNED: lambda: Spawned(run.fresh(alone)),
        SDK: lambda: Sdk(run.cli, (home := run.fresh_directory()), run.variables(home)),
        PIPE: lambda: Pipe(run.fresh(floor)),
        SAMOVAR: lambda: Samovar(address),
    }


def real(run: Run) -> Part:
    """Measure turns sent directly one after another."""
    with run.serving() as served:
        made = contenders(run, served.address)
        samples = interleaved(made, run.sizes.rounds, turns(run.sizes.turns), run.tell)
    part = timed("A turn of the real CLI, right behind the last", samples)
    part.bars, part.unit = {name: 1000 * s.median for name, s in samples.items()}, "ms"
    part.figures = [
        Figure("warm turn against spawn per turn", ratio(*_two(samples, SPAWNED)), "x", least=12),
        Figure("warm turn against bare pipe", 1 / ratio(*_two(samples, PIPE)), "x", most=1.05),
    ]
    return part


def idle(run: Run) -> Part:
    """Measure turns after some idle time, which cost the CLI more."""
    seconds, count = run.sizes.idle, max(run.sizes.turns // IDLE_PART, 1)
    with run.serving() as served:
        made = contenders(run, served.address)
        resumed = plain(run.cli, run.upstream)
        made[RESUMED] = lambda: Spawned(run.fresh(resumed), resume=True)
        samples = interleaved(made, run.sizes.rounds, turns(count, pause=seconds), run.tell)
    part = timed(f"A turn of the real CLI, {seconds:g} s after the last", samples)
    part.figures = [
        Figure(
            f"warm turn against spawn per turn, after {seconds:g} s",
            ratio(*_two(samples, SPAWNED)),
            "x",
            least=12,
        ),
    ]
    return part


def added(run: Run) -> Part:
    """Measure what the service adds to a warm turn of one event."""
    with (
        run.serving_agent() as served,
        programs.bare(run.fresh_directory()) as bare,
        against.beside(run, served, SAMOVAR) as beside,
    ):
        line = line_of(run.agent, "")
        made: dict[str, Make] = {
            PIPE: lambda: Pipe(run.fresh(line)),
            BARE: lambda: Samovar(bare),
            SAMOVAR: lambda: Samovar(served.address),
            **beside.contenders,
        }
        samples = interleaved(made, run.sizes.rounds, arriving(run.sizes.turns, GAP), run.tell)
    part = timed("A turn of one event of an agent that only writes, 100 a second", samples)
    pipe, floor, samovar = samples[PIPE], samples[BARE], samples[SAMOVAR]
    part.figures = [
        Figure(
            f"added to a warm turn, p{percent}",
            1000 * (samovar.percentile(percent) - pipe.percentile(percent)),
            "ms",
            most=most,
        )
        for percent, most in ((50, 1.0), (99, 3.0))
    ]
    alone = 1000 * floor.percentile(50)
    part.figures.append(Figure("of that, gRPC and its client alone, p50", alone, "ms"))
    part.figures += beside.figures(samples, SAMOVAR, PIPE)
    return part


def _two(samples: dict[str, Sample], other: str) -> tuple[Sample, Sample]:
    return samples[other], samples[SAMOVAR]
