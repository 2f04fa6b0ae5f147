"""`python -m recorder`: write the recordings anew, or say which would differ.

Knows the command line and files.
"""

import asyncio
import difflib
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def main(
    names: Annotated[list[str] | None, typer.Argument(help="Only these scenes.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing, show what differs.")
    ] = False,
) -> None:
    """Record the installed CLI.

    With --check exits with 1 if its output differs from the recordings.
    """
    from support.recordings import WIRE

    from recorder import scenes, studio
    from samovard.telemetry import log

    log.configure("auto", "error", sys.stderr)
    wanted = names or list(scenes.SCENES)
    if unknown := set(wanted) - scenes.SCENES.keys():
        raise typer.BadParameter(f"no such scene: {', '.join(sorted(unknown))}")
    differ = 0
    with tempfile.TemporaryDirectory(prefix="sv-", dir="/tmp") as directory:
        for name, rows in asyncio.run(studio.record(Path(directory), wanted)).items():
            path = WIRE / f"{name}.jsonl"
            before = path.read_text() if path.exists() else ""
            after = "".join(json.dumps(row) + "\n" for row in rows)
            differ += before != after
            print(f"{'differs' if before != after else 'as it was'}\t{name}")
            if check:
                print("".join(_differences(before, after)), end="")
            else:
                path.write_text(after)
    raise typer.Exit(1 if check and differ else 0)


def _differences(before: str, after: str) -> list[str]:
    return list(difflib.unified_diff(_spread(before), _spread(after), "recorded", "now", n=1))


def _spread(text: str) -> list[str]:
    """Return the recording with a line for each field, so that a difference is one line."""
    rows: list[Any] = [json.loads(row) for row in text.splitlines()]
    return json.dumps(rows, indent=1).splitlines(keepends=True)


if __name__ == "__main__":
    typer.run(main)
