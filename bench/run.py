"""The context that the parts of one run share: sizes, a directory, programs, and output."""

import itertools
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import programs
from bench.contenders import Line
from bench.programs import CREDENTIAL, PYTHON, ROOT, TESTED, Served, compiled, environ


@dataclass(frozen=True, slots=True)
class Sizes:
    """The amount of work: rounds, and turns, events and large messages in a round.

    `idle` is the seconds of idle before a turn that has some; `variants` bounds how many launch
    lines are tried.
    """

    rounds: int = 5
    turns: int = 200
    events: int = 200_000
    messages: int = 60
    idle: float = 1.0
    variants: int | None = None


QUICK = Sizes(rounds=1, turns=2, events=2_000, messages=6, idle=0.05, variants=1)


@dataclass(slots=True)
class Run:
    """One run. `cli` is the real CLI, `upstream` the stand-in that answers it.

    `tell` shows progress; `against` is another checkout, to be measured beside this one.
    """

    directory: Path
    cli: Path
    upstream: str
    sizes: Sizes
    tell: Callable[[str], None]
    against: Path | None = None
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _agent: Path | None = None

    @property
    def agent(self) -> Path:
        """The agent that only writes, compiled when it is first needed."""
        if self._agent is None:
            self._agent = compiled(self.directory)
        return self._agent

    @contextmanager
    def serving(self, settings: str = "") -> Iterator[Served]:
        """Run a service on the real CLI, which is tested only once in a run.

        `settings` are more sections of its configuration.
        """
        directory, tested = self.fresh_directory(), self.directory / TESTED
        if tested.exists():
            shutil.copy(tested, directory)
        with programs.service(directory, self.cli, self.upstream, settings) as served:
            shutil.copy(directory / TESTED, tested)
            yield served

    @contextmanager
    def serving_agent(
        self,
        telemetry: str = "",
        module: str = "samovard",
        checkout: Path = ROOT,
        python: Path = PYTHON,
    ) -> Iterator[Served]:
        """Run a service on the agent that only writes: a checkout's own, by a Python of its own."""
        directory = self.fresh_directory()
        programs.trust(directory, self.agent)
        service = programs.service(
            directory, self.agent, "", telemetry, module, checkout=checkout, python=python
        )
        with service as served:
            yield served

    def fresh_directory(self) -> Path:
        """Return a new directory for one conversation or one service."""
        path = self.directory / str(next(self._numbers))
        path.mkdir()
        return path

    def fresh(self, line: Line) -> Line:
        """Return a launch line with a directory of its own, which is its home too."""
        home = self.fresh_directory()
        return replace(line, directory=home, variables={**line.variables, "HOME": str(home)})

    def variables(self, home: Path) -> dict[str, str]:
        """Return the least variables that a CLI needs to reach the stand-in."""
        return environ(home, ANTHROPIC_BASE_URL=self.upstream, ANTHROPIC_API_KEY=CREDENTIAL)
