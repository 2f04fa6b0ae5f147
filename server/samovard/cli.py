"""`samovard`: runs the service, shows it, and keeps its keys.

Knows the command line only; each command is a few lines around something else.
"""

import json
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from samovard import __version__, data_commands, listing, store_commands
from samovard.commandline import AsJson, Config, Tenant, check_tenant, fail, run, settings_of
from samovard.settings import Settings, origin, sources

if TYPE_CHECKING:
    from samovard.store.keys import KeyRecord, KeyStore

MOST_DAYS = 36_500
MOST_IDLE = 3_600

# Plain help: Rich's takes brackets for markup and gives flags a type.
app = typer.Typer(
    help="Keep agents warm and serve them over gRPC.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(help="The API keys of tenants.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(keys, name="keys")
app.add_typer(store_commands.store, name="store")
app.add_typer(data_commands.tenants, name="tenants")


def _days(value: float | None) -> float | None:
    if value is not None and not 0 < value <= MOST_DAYS:
        raise typer.BadParameter(f"{value} is no number of days up to {MOST_DAYS}")
    return value


def _pause(value: float) -> float:
    if not 0 <= value <= MOST_IDLE:
        raise typer.BadParameter(f"{value} is no number of seconds up to {MOST_IDLE}")
    return value


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
    listen: Annotated[
        str | None,
        typer.Option(help="Where to listen, host:port or unix:/path, in place of server.listen."),
    ] = None,
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
    settings = settings_of(config, listen)
    from samovard import serving
    from samovard.telemetry import log

    if keys is not None:
        _take_keys(settings, keys)
    # The console and what Python itself prints look up stderr each time: all of it is safe.
    with log.unblocked():
        run(serving.serve(settings, Console(stderr=True), stand_in=stand_in, keys=keys))


@app.command()
def demo(
    as_json: AsJson = False,
    live: Annotated[
        bool, typer.Option("--live", help="Ask the real API, with the configured credential.")
    ] = False,
    idle: Annotated[
        float, typer.Option(callback=_pause, help="Seconds of idle between the turns.")
    ] = 5.0,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Trace a few turns, and draw them: .svg or .html."),
    ] = None,
    config: Config = None,
) -> None:
    """Hold a real conversation on one warm process, and compare it with spawning."""
    # Without `--live` nothing of the user's counts, so nothing of it can be wrong.
    settings = settings_of(config) if live or config else None
    from samovard.demo import picture
    from samovard.demo.run import show

    if live and settings and settings.credentials.provider is None:
        fail("--live needs a credential: set credentials.provider", 2)
    console = Console(stderr=as_json)
    try:
        if trace is not None:
            picture.check(trace)
        asked = show(settings if live else None, console, idle=idle, trace=trace is not None)
        findings = run(asked)
        if trace is not None:
            picture.write(trace, findings.traced or [])
            console.print(f"\n{trace}", highlight=False, markup=False)
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
    show: Annotated[
        bool,
        typer.Option("--show", help="Print every setting in force and where it comes from."),
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Check the settings and, if asked to, the agent. Exits with 1 if a check failed."""
    settings = settings_of(config)
    from samovard import checking

    if show:
        checking.show_settings(origin.rows(settings, sources(config), config), as_json=as_json)
    elif not agent:
        print('{"settings": "ok"}' if as_json else "settings\tok")
    if not agent:
        return
    found = run(checking.agent(settings))
    if as_json:
        print(checking.as_json(*found))
    else:
        checking.show(Console(), *found)
    raise typer.Exit(0 if checking.passed(found[2]) else 1)


@app.command("stand-in")
def stand_in(
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
) -> None:
    """Run the stand-in for the model's API alone. It is no model."""
    from samovard import serving

    run(serving.stand_in(host, port))


@keys.command("add")
def add_key(
    tenant: Tenant,
    expires_in: Annotated[
        float | None, typer.Option(callback=_days, help="Days until it expires.")
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="For an operator: sees all tenants, has no sessions.")
    ] = False,
    config: Config = None,
) -> None:
    """Make a key for a tenant, or an operator, and print it: it is shown this once only."""
    settings = settings_of(config)
    from samovard.app import pepper
    from samovard.edge.identity import ADMIN_SCOPES, SESSION_SCOPES, new_key

    check_tenant(tenant)
    now = time.time()
    ends = None if expires_in is None else now + expires_in * 86400.0
    scopes = ADMIN_SCOPES if admin else SESSION_SCOPES

    async def add(store: "KeyStore") -> str:
        text, record = new_key(tenant, pepper(settings), now, ends, scopes)
        await store.add(record)
        return text

    print(run(_with_keys(settings, add)))


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Argument(help="Only this tenant's.")] = None,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """List keys: what they are, never their secrets."""
    check_tenant(tenant)
    found = run(_with_keys(settings_of(config), lambda store: store.list(tenant)))
    rows = [_key_row(key, time.time()) for key in found]
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    listing.show(
        ("ID", "TENANT", "STATE", "CREATED", "EXPIRES", "SCOPES"),
        [
            [" ".join(v) if isinstance(v, list) else v or "never" for v in row.values()]
            for row in rows
        ],
    )


def _key_row(key: "KeyRecord", now: float) -> dict[str, Any]:
    """Return what a key is as JSON has it, without its secret."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "state": "valid" if key.valid(now) else "revoked" if key.revoke_time else "expired",
        "create_time": _time(key.create_time),
        "expire_time": _time(key.expire_time),
        "scopes": sorted(key.scopes),
    }


def _time(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


@keys.command("export")
def export_keys(config: Config = None) -> None:
    """Print every key, without its secret, for `samovard serve --keys` elsewhere.

    Such a server needs the same pepper (auth.api_key.pepper).
    """
    from samovard.store import key_file

    found = run(_with_keys(settings_of(config), lambda store: store.list()))
    print(key_file.text(found), end="")


@keys.command("revoke")
def revoke_key(
    tenant: Tenant,
    key: Annotated[str | None, typer.Option(help="The id of one key; all without it.")] = None,
    config: Config = None,
) -> None:
    """Revoke a tenant's keys; running services notice within 5 s."""
    check_tenant(tenant)
    if key is not None and not key.isascii():
        fail("there is no such key", 1)
    settings = settings_of(config)
    now = time.time()
    count = run(_with_keys(settings, lambda store: store.revoke(tenant, key, now)))
    if not count:
        fail("there is no such key", 1)
    print(f"revoked {count}")


def _take_keys(settings: Settings, path: Path) -> None:
    from samovard.store import key_file

    try:
        told = key_file.read(path)
    except key_file.NotKeys as error:
        fail(str(error), 2)
    run(_with_keys(settings, lambda store: store.take(told)))


async def _with_keys(settings: Settings, work: Any) -> Any:
    from samovard.store.database import Database
    from samovard.store.keys import KeyStore

    settings.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    async with Database(settings.url) as database:
        return await work(KeyStore(database))


def main() -> None:
    """Run the program."""
    # Before grpc is imported. Its fork handlers would run at each spawn, and an empty
    # value is an error.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    from samovar import streams

    streams.open_missing()
    # A service that breaks is looked into by its log.
    streams.run("samovard", app, traces=sys.argv[1:2] == ["serve"])
