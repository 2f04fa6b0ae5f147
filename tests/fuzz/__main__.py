"""`python -m fuzz`: inputs by the hundred thousand.

Parses the command line; the targets are in `fuzz.targets`.
"""

import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

CRASHES = Path(".fuzz")


def main(
    count: Annotated[int, typer.Option(min=1, help="Inputs of each target.")] = 100_000,
    seed: Annotated[int | None, typer.Option(help="Draws the inputs; printed.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A target; may be repeated.")] = None,
    again: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Try the input in this file.")
    ] = None,
) -> None:
    """Try unusual inputs: requests, callers, an agent's output, and its requests to the broker.

    On a terminal the progress is shown. The last line is one of JSON, with every figure beside its
    bound. What crashes is kept in `.fuzz`, and ends its target. Exits with 1 if anything did.
    """
    from fuzz import run
    from fuzz.targets import TARGETS

    if unknown := {*(only or ())} - TARGETS.keys():
        raise typer.BadParameter(f"no such target: {', '.join(sorted(unknown))}")
    drawn = random.randrange(1 << 32) if seed is None else seed
    told: dict[str, object] = {} if again else {"seed": drawn}
    targets = {name: TARGETS[name] for name in only or TARGETS}
    tried = [run.kept(again, TARGETS)] if again else [(found, None) for found in targets.values()]
    passed = True
    for target, kept in tried:
        found = (
            run.again(target, kept) if again else run.fuzz(target, count, drawn, _told(target.name))
        )
        told[target.name] = found.report()
        passed = passed and not found.told
        if found.told:
            path = again or run.keep(target, found.crash, CRASHES)
            print(f"{found.told}\n{found.crash}", file=sys.stderr)
            print(
                f'fuzz: {target.name}: again with make fuzz ARGS="--again {path}"', file=sys.stderr
            )
    print(json.dumps(told | {"passed": passed}))
    raise typer.Exit(0 if passed else 1)


def _told(name: str) -> Callable[[int, int], None]:
    shown = sys.stderr.isatty()

    def say(tried: int, count: int) -> None:
        if shown:
            end = "\n" if tried == count else ""
            print(f"\rfuzz: {name}: {tried} of {count}", end=end, file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    typer.run(main)
