"""`python -m chaos`: turns by the thousand, and every seventh time a process dies.

Parses the command line; what happens is in `chaos.run`.
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
    turns: Annotated[int, typer.Option(min=1, help="Turns.")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="Draws the faults; printed.")] = None,
) -> None:
    """Run turns whose processes are killed, stopped, cut off and lied for.

    Shows the progress on stderr, and ends with one line of JSON that has every figure beside its
    bound. Exits with 1 if a bound is broken, unless it is one of speed.
    """
    from chaos.run import chaos
    from samovard.telemetry import log

    log.configure("auto", "critical", sys.stderr)
    drawn = random.randrange(1 << 32) if seed is None else seed

    def say(line: str) -> None:
        print(f"chaos: {line}", file=sys.stderr, flush=True)

    say(f"seed {drawn}")
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as directory:
        tally = asyncio.run(chaos(Path(directory), turns, drawn, say=say))
    say(f"{tally.counts['turns']} turns in {tally.seconds:.0f} s")
    print(json.dumps({"seed": drawn, **tally.report(), "passed": not tally.broken}))
    raise typer.Exit(1 if tally.broken else 0)


if __name__ == "__main__":
    typer.run(main)
