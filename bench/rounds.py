"""Interleaved rounds and their statistics. Knows nothing of what is measured."""

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bench.contenders import Contender

WARM_UP = 5  # turns of a conversation that do not count

Make = Callable[[], Contender]


@dataclass(slots=True)
class Sample:
    """The seconds of each turn of a contender, by round, and its wrong answers."""

    rounds: list[list[float]] = field(default_factory=list)
    wrong: int = 0

    @property
    def all(self) -> list[float]:
        """Every turn of every round."""
        return [seconds for turns in self.rounds for seconds in turns]

    @property
    def medians(self) -> list[float]:
        """The median of each round."""
        return [statistics.median(turns) for turns in self.rounds]

    @property
    def median(self) -> float:
        """The median of the rounds' medians."""
        return statistics.median(self.medians)

    def percentile(self, percent: float) -> float:
        """Return a percentile of all turns."""
        ordered = sorted(self.all)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def ratio(of: Sample, to: Sample) -> float:
    """Return the median of the rounds' own ratios: what slows a whole round cancels out."""
    return statistics.median(a / b for a, b in zip(of.medians, to.medians, strict=True))


def interleaved(
    contenders: Mapping[str, Make],
    rounds: int,
    measure: Callable[[Contender, Sample], None],
    tell: Callable[[str], None],
) -> dict[str, Sample]:
    """Measure each contender once a round, in a shuffled order."""
    samples = {name: Sample() for name in contenders}
    shuffled = random.Random(1)
    for number in range(rounds):
        for name in shuffled.sample(sorted(contenders), len(contenders)):
            tell(f"round {number + 1} of {rounds}: {name}")
            with contenders[name]() as contender:
                gc.collect()
                measure(contender, samples[name])
    return samples


def turns(
    count: int, *, text: str = "Say OK", answer: str = "OK", pause: float = 0.0
) -> Callable[[Contender, Sample], None]:
    """Return a function that measures `count` turns; with `pause`, each after so many idle
    seconds.
    """

    def measure(contender: Contender, sample: Sample) -> None:
        for _ in range(WARM_UP if count > WARM_UP else 1):
            contender.turn(text)
        seconds = []
        for _ in range(count):
            if pause:
                time.sleep(pause)
            begin = time.perf_counter()
            sample.wrong += contender.turn(text) != answer
            seconds.append(time.perf_counter() - begin)
        sample.rounds.append(seconds)

    return measure


def arriving(count: int, gap: float) -> Callable[[Contender, Sample], None]:
    """Return a function that measures turns that arrive at fixed times, from when each was due."""

    def measure(contender: Contender, sample: Sample) -> None:
        for _ in range(WARM_UP):
            contender.turn("Say OK")
        seconds = []
        begin = time.perf_counter() + gap
        for number in range(count):
            due = begin + number * gap
            while (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            sample.wrong += contender.turn("Say OK") != "OK"
            seconds.append(time.perf_counter() - due)
        sample.rounds.append(seconds)

    return measure
