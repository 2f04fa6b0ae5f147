"""`python -m security`: attacks on running services, each against its control.

Parses the command line; the attacks are run by `security.run`.
"""

import asyncio
import os
import sys
import time
from typing import Annotated

from support.starter_environment import settle

settle()

import typer  # noqa: E402  # settled before anything imports grpc
from rich.console import Console  # noqa: E402
from rich.markup import escape  # noqa: E402

WIDTH = 160  # of the table where there is no terminal


def main(
    without: Annotated[
        bool,
        typer.Option("--without", help="Take each control out: its attack must be noticed."),
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Attacks whose surface or name has this. Repeatable.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Less of everything, and nothing on the real CLI.")
    ] = False,
) -> None:
    """Attack running services and count what was blocked, leaked, crashed or grew.

    The last line is one of JSON, with every count beside its bound. Exits with 1 if an attack
    was not blocked, or the absence of a control was not noticed.
    """
    from security import shown
    from security.catalog import attacks
    from security.run import Tally, run, run_without

    chosen = [
        one
        for one in attacks()
        if not only or any(word in f"{one.surface}: {one.name}" for word in only)
    ]
    if not chosen:
        raise typer.BadParameter("there is no such attack")
    console, errors = Console(), Console(stderr=True)
    if not console.is_terminal:
        console.width = WIDTH
    tally, begin = Tally(), time.monotonic()
    with errors.status("starting") as status:

        def tell(line: str) -> None:
            so_far = f"{len(tally.tried)} tried, {time.monotonic() - begin:.0f} s: {line}"
            status.update(escape(so_far))
            if not errors.is_terminal:
                print(f"security: {so_far}", file=sys.stderr)

        asyncio.run(run(chosen, tally, tell, long=not quick))
        if without:
            asyncio.run(run_without(chosen, tally, tell, long=not quick))
    shown.show(tally, console)
    print(shown.report(tally, whole=not (only or quick), without=without))
    raise typer.Exit(0 if shown.passed(tally) else 1)


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    typer.run(main)
