"""`python -m races`: interrupts against next turns, by the thousand.

Parses the command line; the races are in `races.run`.
"""

import asyncio
import json
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def main(
    fake: Annotated[int, typer.Option(min=0, help="Races on the fake agent.")] = 10_000,
    real: Annotated[int, typer.Option(min=0, help="Races on the real CLI.")] = 200,
    seed: Annotated[int | None, typer.Option(help="Draws the moments; printed.")] = None,
) -> None:
    """Race interrupts against next turns and count what mixes.

    Shows the progress on stderr. The last line is one of JSON, with every figure beside its bound.
    Exits with 1 if a bound is broken.
    """
    from races.run import races
    from samovard.telemetry import log

    log.configure("auto", "error", sys.stderr)
    drawn = random.randrange(1 << 32) if seed is None else seed
    print(f"races: seed {drawn}", file=sys.stderr)
    told: dict[str, object] = {"seed": drawn}
    broken = False
    for name, count in (("fake", fake), ("real", real)):
        if not count:
            continue

        def say(line: str, name: str = name) -> None:
            print(f"races: {name}: {line}", file=sys.stderr)

        with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as directory:
            on_fake = name == "fake"
            tally = asyncio.run(races(Path(directory), count, drawn, fake=on_fake, say=say))
        say(f"{tally.counts['races']} races in {tally.seconds:.0f} s")
        told[name] = tally.report()
        broken = broken or bool(tally.broken)
    print(json.dumps(told | {"passed": not broken}))
    raise typer.Exit(1 if broken else 0)


if __name__ == "__main__":
    typer.run(main)
