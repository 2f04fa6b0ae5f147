"""Another checkout's service beside this one's: which costs more, in the same rounds.

Knows how a checkout is set up. Measures the CPU time of turns, not their duration.
"""

import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.contenders import Samovar
from bench.figures import Figure
from bench.programs import CannotRun, Program, Served
from bench.rounds import Make, Sample
from bench.run import Run

OTHER = "the other checkout"
MOST = 1.03
_WHERE = "import samovard; print(samovard.__file__)"


def interpreter(checkout: Path) -> Path:
    """Return the Python that runs a checkout's service. Raise `CannotRun` if there is none."""
    python = checkout.absolute() / ".venv" / "bin" / "python"
    if not python.exists():
        raise CannotRun(f"{checkout} is not set up: run `make -C {checkout} .venv/.run`")
    command = [str(python), "-c", _WHERE]
    # In a directory of its own: Python first looks where it is started.
    found = subprocess.run(command, cwd=python.parent, capture_output=True, text=True, check=False)
    if found.returncode != 0 or not Path(found.stdout).is_relative_to(checkout.absolute()):
        where = found.stdout.strip() or "none"
        raise CannotRun(f"the environment of {checkout} has another samovard: {where}")
    return python


class Metered(Samovar):
    """A conversation with a service, which records the CPU time of a warm turn at its end."""

    def __init__(self, served: Served, cpu: list[float]) -> None:
        super().__init__(served.address)
        self._program: Program = served.program
        self._cpu = cpu
        self._turns, self._before = 0, 0.0

    def __enter__(self) -> Self:
        super().turn("Say OK")  # this starts the process
        self._before = self._program.cpu_seconds()
        return self

    def turn(self, text: str) -> str:
        """Send a message, and read every event."""
        self._turns += 1
        return super().turn(text)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Record the CPU time, and end the session."""
        self._cpu.append((self._program.cpu_seconds() - self._before) / max(self._turns, 1))
        super().__exit__(kind, error, traceback)


@dataclass(slots=True)
class Beside:
    """Conversations with both services; none if there is no other checkout."""

    contenders: dict[str, Make] = field(default_factory=dict)
    cpu: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def figures(self, samples: dict[str, Sample], own: str, floor: str) -> list[Figure]:
        """Return the CPU of a turn and the ratios of this service to the other one.

        Ratios are medians of the rounds' own.
        """
        if not self.contenders:
            return []
        added = [_above(samples[name], samples[floor]) for name in (own, OTHER)]
        own_cpu, other_cpu = (1000 * statistics.median(cpu) for cpu in self.cpu)
        return [
            Figure("server CPU of a warm turn", own_cpu, "ms"),
            Figure(f"the same, {OTHER}", other_cpu, "ms"),
            Figure(f"server CPU of a warm turn, to {OTHER}", _ratio(*self.cpu), "x", most=MOST),
            Figure(f"added to a warm turn, p50, to {OTHER}", _ratio(*added), "x", most=MOST),
        ]


def _above(sample: Sample, floor: Sample) -> list[float]:
    return [a - b for a, b in zip(sample.medians, floor.medians, strict=True)]


def _ratio(of: list[float], to: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(of, to, strict=True))


@contextmanager
def beside(run: Run, served: Served, own: str) -> Iterator[Beside]:
    """Run the other checkout's service, if there is one, beside one that is called `own`."""
    if run.against is None:
        yield Beside()
        return
    python = interpreter(run.against)
    with run.serving_agent(checkout=run.against, python=python) as other:
        both = Beside()
        first, second = both.cpu
        both.contenders = {
            own: lambda: Metered(served, first),
            OTHER: lambda: Metered(other, second),
        }
        yield both
