"""`samovard`: runs the service, shows it, and keeps its keys.

Knows the command line only; each command is a few lines around something else.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console

from samovard import __version__
from samovard.settings import Settings, SettingsError, load

app = typer.Typer(help="Keep agents warm and serve them over gRPC.", no_args_is_help=True)
keys = typer.Typer(help="The API keys of tenants.", no_args_is_help=True)
app.add_typer(keys, name="keys")

Config = Annotated[Path | None, typer.Option(help="The settings, a TOML file.")]
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
Tenant = Annotated[str, typer.Argument(help="The tenant: [a-z0-9][a-z0-9-]{0,62}.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"samovard {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Keep agents warm and serve them over gRPC."""


@app.command()
def serve(
    config: Config = None,
    stand_in: Annotated[
        bool,
        typer.Option(
            "--stand-in-if-no-credential",
            help="Without a credential, answer from a stand-in for the model's API.",
        ),
    ] = False,
    keys: Annotated[
        Path | None, typer.Option(help="Keys to know from the start: a file of `keys export`.")
    ] = None,
) -> None:
    """Run the service until SIGTERM, SIGINT or SIGQUIT. SIGHUP reloads keys."""
    settings = _settings(config)
    from samovard import serving
    from samovard.telemetry import log

    if keys is not None:
        _take_keys(settings, keys)
    # The console and what Python itself prints look up stderr each time: all of it is safe.
    with log.unblocked():
        _run(serving.serve(settings, Console(stderr=True), stand_in=stand_in, keys=keys))


@app.command()
def demo(
    as_json: AsJson = False,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the real API, with the configured credential.")
    ] = False,
    idle: Annotated[float, typer.Option(help="Seconds of idle between the turns.")] = 5.0,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trace a few turns, and draw them: .svg or .html."),
    ] = None,
    config: Config = None,
) -> None:
    """Hold a real conversation on one warm process, and compare it with spawning."""
    # Without `--live` nothing of the user's counts, so nothing of it can be wrong.
    settings = _settings(config) if live or config else None
    from samovard.demo import picture
    from samovard.demo.run import show

    if live and settings and settings.credentials.provider is None:
        fail("--live needs a credential: set credentials.provider", 2)
    console = Console(stderr=as_json)
    try:
        if trace is not None:
            picture.check(trace)
        asked = show(settings if live else None, console, idle=idle, trace=trace is not None)
        findings = _run(asked)
        if trace is not None:
            picture.write(trace, findings.traced or [])
            console.print(f"\n{trace}", highlight=False)
    except picture.CannotDraw as error:
        fail(str(error), 2)
    if as_json:
        print(json.dumps(findings.as_json()))
    raise typer.Exit(0 if findings.passed else 1)


@app.command()
def check(
    agent: Annotated[
        bool, typer.Option("--agent", help="Try every behaviour of the CLI that is leaned on.")
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Check the settings and, if asked to, the agent. Exits with 1 if a check failed."""
    settings = _settings(config)
    if not agent:
        print('{"settings": "ok"}' if as_json else "settings\tok")
        return
    from samovard import checking

    found = _run(checking.agent(settings))
    if as_json:
        print(checking.as_json(*found))
    else:
        checking.show(Console(), *found)
    raise typer.Exit(0 if checking.passed(found[2]) else 1)


@app.command("stand-in")
def stand_in(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0: any that is free.")] = 0,
) -> None:
    """Run the stand-in for the model's API alone. It is no model."""
    from samovard import serving

    _run(serving.stand_in(host, port))


@keys.command("add")
def add_key(
    tenant: Tenant,
    expires_in: Annotated[float | None, typer.Option(help="Days until it expires.")] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="For an operator: sees all tenants, has no sessions.")
    ] = False,
    config: Config = None,
) -> None:
    """Make a key for a tenant, or an operator, and print it: it is shown this once only."""
    settings = _settings(config)
    from samovard.app import pepper
    from samovard.edge.identity import ADMIN_SCOPES, SESSION_SCOPES, TENANT, new_key

    if not TENANT.fullmatch(tenant):
        fail(f"{tenant} is no tenant: it must match {TENANT.pattern}", 2)
    now = time.time()
    ends = None if expires_in is None else now + expires_in * 86400.0
    scopes = ADMIN_SCOPES if admin else SESSION_SCOPES
    text, record = new_key(tenant, pepper(settings), now, ends, scopes)
    _run(_with_keys(settings, lambda store: store.add(record)))
    print(text)


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """List keys: what they are, never their secrets."""
    now = time.time()
    for key in _run(_with_keys(_settings(config), lambda store: store.list(tenant))):
        state = "valid" if key.valid(now) else "revoked" if key.revoke_time else "expired"
        made = datetime.fromtimestamp(key.create_time, UTC).isoformat(timespec="seconds")
        if as_json:
            row = {"id": key.id, "tenant": key.tenant, "state": state, "create_time": made}
            print(json.dumps(row | {"scopes": sorted(key.scopes)}))
        else:
            print("\t".join((key.id, key.tenant, state, made, " ".join(sorted(key.scopes)))))


@keys.command("export")
def export_keys(config: Config = None) -> None:
    """Print every key, without its secret, for `samovard serve --keys` elsewhere.

    Such a server needs the same pepper (auth.api_key.pepper).
    """
    from samovard.store import key_file

    found = _run(_with_keys(_settings(config), lambda store: store.list()))
    print(key_file.text(found), end="")


@keys.command("revoke")
def revoke_key(
    tenant: Tenant,
    key: Annotated[str | None, typer.Option(help="The id of one key; all without it.")] = None,
    config: Config = None,
) -> None:
    """Revoke a tenant's keys; running services notice within 5 s."""
    settings = _settings(config)
    now = time.time()
    count = _run(_with_keys(settings, lambda store: store.revoke(tenant, key, now)))
    if not count:
        fail("there is no such key", 1)
    print(f"revoked {count}")


def _take_keys(settings: Settings, path: Path) -> None:
    from samovard.store import key_file

    try:
        told = key_file.read(path)
    except key_file.NotKeys as error:
        fail(str(error), 2)
    _run(_with_keys(settings, lambda store: store.take(told)))


async def _with_keys(settings: Settings, work: Any) -> Any:
    from samovard.store.database import Database
    from samovard.store.keys import KeyStore

    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with Database(settings.url) as database:
        return await work(KeyStore(database))


def _settings(config: Path | None) -> Settings:
    try:
        return load(config)
    except SettingsError as error:
        fail(str(error), 2)


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs something to its end; what is the operator's to mend is told in one line."""
    from samovard.app import CannotStart
    from samovard.core.errors import SamovarError

    try:
        return asyncio.run(work)
    except (CannotStart, SamovarError) as error:
        fail(str(error), 1)
    except KeyboardInterrupt:
        raise typer.Exit(128 + signal.SIGINT) from None


def fail(message: str, code: int) -> NoReturn:
    """Prints one line and exits."""
    try:
        print(f"samovard: {message}", file=sys.stderr)
    except OSError:  # it cannot be told; Python's own flush at exit would change the code to 120
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # for good
    raise typer.Exit(code)


def _open_standard_files() -> None:
    """Open /dev/null as each standard file that the caller closed.

    Otherwise the next file to be opened, perhaps the database, takes its number and gets what
    is printed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115  # for good


def main() -> None:
    """Runs the program."""
    _open_standard_files()
    # Before grpc is imported. Its fork handlers would run at each spawn, and an empty
    # value is an error.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    app()
