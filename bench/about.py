"""The conditions of a run: versions, cores, and how busy they were."""

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bench.run import Sizes

DISTRIBUTIONS = ("claude-agent-sdk", "grpcio", "msgspec", "protobuf", "SQLAlchemy")


@dataclass(frozen=True, slots=True)
class About:
    """A run. `load` is the machine's, before and after; `versions` are by distribution."""

    command: str
    sizes: Sizes
    cores: int
    architecture: str
    python: str
    claude: str
    versions: dict[str, str]
    seconds: int
    load: tuple[float, float]


def load() -> float:
    """Return the mean number of processes that ran or were ready to in the last minute."""
    return round(os.getloadavg()[0], 2)


def about(command: str, sizes: Sizes, cli: Path, seconds: float, before: float) -> About:
    """Return the conditions of a run of so many seconds; `before` was the load at its start."""
    said = subprocess.run([cli, "--version"], capture_output=True, text=True, check=True).stdout
    return About(
        command=command,
        sizes=sizes,
        cores=os.cpu_count() or 0,
        architecture=platform.machine(),
        python=platform.python_version(),
        claude=said.split()[0],
        versions={name: version(name) for name in DISTRIBUTIONS},
        seconds=round(seconds),
        load=(before, load()),
    )
