"""The parts that commands share: options, settings, the store, and failures on one line.

Knows Typer and exit codes. Knows no command.
"""

import asyncio
import re
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from samovard.settings import TENANT, Settings, SettingsError, load, variables

if TYPE_CHECKING:
    from samovard.store.sqlite.database import Database

Config = Annotated[Path | None, typer.Option(help="The settings, a TOML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Tenant = Annotated[str, typer.Argument(help="The tenant: [a-z0-9][a-z0-9-]{0,62}.")]


def settings_of(config: Path | None, listen: str | None = None) -> Settings:
    """Return the settings, and print a line for each variable that has no effect."""
    try:
        settings = load(config, listen)
    except SettingsError as error:
        fail(str(error), 2)
    for sentence in variables.unknown():
        tell(f"samovard: {sentence}")
    return settings


def check_tenant(tenant: str | None) -> None:
    """Exit with 2 if a name is not valid for a tenant."""
    if tenant is not None and not re.fullmatch(TENANT, tenant):
        fail(f"{tenant} is not a tenant's name: it must match {TENANT}", 2)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    """Run something to its end; an error that the operator can mend is one line."""
    from samovard.core.errors import SamovarError
    from samovard.secret import CannotRead
    from samovard.state_lock import CannotStart

    try:
        return asyncio.run(work)
    except (CannotStart, CannotRead, SamovarError) as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


def audit(settings: Settings, act: str, **fields: str | int | list[str]) -> None:
    """Write an act to the audit log before it is done. Exit with 1 if it cannot be written."""
    from samovard import auditing

    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        auditing.act(settings, act, **fields)
    except auditing.CannotAudit as error:
        fail(str(error), 1)


def store_path(settings: Settings) -> Path:
    """Return the file of the store, or exit with 1 if the store is in memory."""
    from sqlalchemy import make_url

    name = make_url(settings.url).database
    if name in (None, "", ":memory:"):
        fail("the store is in memory: it has no file", 1)
    return Path(name)


@contextmanager
def progress(word: str) -> Iterator[Callable[[int, int], None]]:
    """Show progress on a terminal. Yield a function that takes what is done and the total."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(word)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def stored(settings: Settings, work: "Callable[[Database], Awaitable[Any]]") -> Any:
    """Return the result of some work with the open store."""

    async def opened() -> Any:
        from samovard.store.sqlite.database import Database

        settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with Database(settings.url) as database:
            return await work(database)

    return run(opened())


def time_of(seconds: float | None) -> str | None:
    """Return a time as JSON has it; None for never."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def tell(line: str) -> None:
    """Print a line to stderr, if that can be done."""
    from samovar import streams

    streams.tell(line)


def fail(message: str, code: int) -> NoReturn:
    """Print one line and exit."""
    tell(f"samovard: {message}")
    raise typer.Exit(code)
