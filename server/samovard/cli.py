"""`samovard`: runs the service, shows its state, and manages keys and tenants.

Parses the command line; the work is done elsewhere.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from samovard import __version__, key_commands, store_commands, tenant_commands
from samovard.commandline import AsJson, Config, fail, run, settings_of
from samovard.settings import origin, sources

MOST_IDLE = 3_600
COLLECT_AFTER = 50_000  # objects made and not freed, while modules are imported

# Plain help: Rich's would take brackets for markup and show a type for flags.
app = typer.Typer(
    help="Keep agents warm and serve them over gRPC.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.add_typer(key_commands.keys, name="keys")
app.add_typer(tenant_commands.tenants, name="tenants")
app.add_typer(store_commands.store, name="store")


def _pause(value: float) -> float:
    if not 0 <= value <= MOST_IDLE:
        raise typer.BadParameter(f"{value} is not a number of seconds up to {MOST_IDLE}")
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
    """Run the service until SIGTERM, SIGINT or SIGQUIT. SIGHUP reloads files."""
    settings = settings_of(config, listen)
    from samovard import serving
    from samovard.telemetry import log

    if keys is not None:
        key_commands.take(settings, keys)
    # The console and Python's own prints look up stderr each time, so replacing it is safe.
    with log.unblocked():
        files = serving.Files(config, listen, keys)
        run(serving.serve(settings, Console(stderr=True), files, stand_in=stand_in))


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
    # Without `--live` no setting of the user's counts, so none of them can be wrong.
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
        bool,
        typer.Option("--agent", help="Test every behaviour of the CLI that the service relies on."),
    ] = False,
    isolation: Annotated[
        bool,
        typer.Option("--isolation", help="Try to get out of the walls of every rung."),
    ] = False,
    show: Annotated[
        bool,
        typer.Option("--show", help="Print every setting in force and where it comes from."),
    ] = False,
    as_json: AsJson = False,
    config: Config = None,
) -> None:
    """Check the settings and, if asked to, agent and isolation. Exits with 1 if a check failed."""
    settings = settings_of(config)
    from samovard import checking

    if show:
        checking.show_settings(origin.rows(settings, sources(config), config), as_json=as_json)
    elif not (agent or isolation):
        print('{"settings": "ok"}' if as_json else "settings\tok")
    if isolation:
        findings = run(checking.isolation())
        checking.show_isolation(settings, findings, as_json=as_json)
        if checking.usable(settings, findings) is None:
            raise typer.Exit(1)
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


def main() -> None:
    """Run the program."""
    # Before grpc is imported. Its fork handlers would run at each spawn, and an empty
    # value is an error.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # Objects that imports make stay: searching them for garbage takes a tenth of a start.
    gc.set_threshold(COLLECT_AFTER)
    from samovar import streams

    streams.open_missing()
    # A service that fails is diagnosed by its log.
    streams.run("samovard", app, traces=sys.argv[1:2] == ["serve"])
