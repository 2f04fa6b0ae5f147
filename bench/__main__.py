"""`python -m bench`: measure the service beside what a user would run instead.

Parses the command line; the parts of a run are in `bench.parts`.
"""

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from bench import page, programs
from bench.about import About, about, load
from bench.figures import Part, report, show
from bench.parts import PARTS
from bench.programs import CannotRun
from bench.run import QUICK, Run, Sizes
from samovard.agent import binary
from samovard.core.errors import Misconfigured

WIDTH = 100  # of tables where there is no terminal


def main(
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of each part.")] = None,
    turns: Annotated[int | None, typer.Option(min=1, help="Turns in a round.")] = None,
    events: Annotated[int | None, typer.Option(min=1, help="Events in a round.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Only this part: {', '.join(PARTS)}. Repeatable.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="So few of everything that no figure means anything.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Nothing but the last line on stdout.")
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            metavar="CHECKOUT",
            help="Another checkout, set up: `added` measures its service, too.",
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write figures and chart into docs/ as well.")
    ] = False,
) -> None:
    """Measure the service beside what a user would run instead.

    The last line is one of JSON, with every figure beside its bound. Exits with 1 if an
    answer was wrong or a process is left; a speed that is missed changes nothing.
    """
    if unknown := set(only or ()) - set(PARTS):
        _fail(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if against is not None and only and "added" not in only:
        _fail("--against needs the part `added`")
    if write and (only or quick):
        _fail("--write needs the whole run: neither --only nor --quick")
    given = {"rounds": rounds, "turns": turns, "events": events}
    sizes = replace(
        QUICK if quick else Sizes(), **{name: count for name, count in given.items() if count}
    )
    console = Console(stderr=as_json)
    if not console.is_terminal:
        console.width = WIDTH
    try:
        parts, left, said = _run(sizes, only or list(PARTS), console, against)
    except (CannotRun, Misconfigured) as error:
        _fail(str(error))
    if write:
        page.write(parts, said)
    print(report(parts, left, said))
    raise typer.Exit(1 if left or any(part.wrong for part in parts) else 0)


def _run(
    sizes: Sizes, names: Sequence[str], console: Console, against: Path | None
) -> tuple[list[Part], list[str], About]:
    """Measure these parts. Return also the processes that are left, and the facts of the run."""
    begin, before = time.monotonic(), load()
    with tempfile.TemporaryDirectory(prefix="") as made:
        directory = Path(made)  # short: an agent's path has at most 80 bytes
        claude = binary.find(None, os.environ.get("PATH", "")).path
        parts = []
        with console.status("starting") as status, programs.stand_in(directory) as upstream:
            run = Run(directory, claude, upstream, sizes, status.update, against)
            for name in PARTS:
                if name in names:
                    run.tell = _telling(status.update, name)
                    parts.append(PARTS[name](run))
                    show(parts[-1], console)
        left = programs.left(directory)
    for process in left:
        console.print(f"[red]left: {escape(process)}[/]")
    arguments = [f"ARGS={shlex.join(sys.argv[1:])}"] if sys.argv[1:] else []
    command = shlex.join(["make", "bench", *arguments])
    return parts, left, about(command, sizes, claude, time.monotonic() - begin, before)


def _telling(update: Callable[[str], None], name: str) -> Callable[[str], None]:
    begin = time.monotonic()

    def tell(what: str) -> None:
        update(f"{name}, {time.monotonic() - begin:.0f} s: {escape(what)}")

    return tell


def _fail(message: str) -> NoReturn:
    print(f"bench: {message}", file=sys.stderr)
    raise typer.Exit(2)


if __name__ == "__main__":
    typer.run(main)
