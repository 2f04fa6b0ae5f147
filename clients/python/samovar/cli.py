"""`samovar`: what a person types.

Text goes to stdout and everything else to stderr, so that it can be piped; with `--json` failures
go to stdout, too.
"""

import asyncio
import contextlib
import json
import os
import sys
from typing import Annotated

import typer

import samovar
from samovar import chat as chatting
from samovar import listing, operations, sending, spending, streams
from samovar import top as topping
from samovar.arguments import (
    ApiKey,
    AsJson,
    Ask,
    Deadline,
    EitherKey,
    EitherTarget,
    FirstDay,
    LastDay,
    Model,
    OperatorKey,
    OperatorTarget,
    Profile,
    SessionName,
    SessionOption,
    Target,
    TlsCert,
    TlsKey,
    UseTls,
)
from samovar.calling import calling, check, fail, failing
from samovar.exits import EPILOG, Exit
from samovar.operating import operator_target
from samovar.reach import Place
from samovar.top.figures import Sort
from samovar.transport import DEFAULT_TARGET, Shown, Transport

# Plain help: Rich's would take brackets for markup and show a type for flags.
app = typer.Typer(
    help="Talk to an agent that stays warm.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
sessions = typer.Typer(
    help="Look at sessions and close them.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(sessions, name="sessions")
app.add_typer(operations.app, name="operate")


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Talk to an agent that stays warm."""
    if version:
        print(f"samovar {samovar.__version__}")
        raise typer.Exit


app.info.invoke_without_command = True


@app.command(epilog=EPILOG)
def send(
    text: Annotated[str, typer.Argument(help="The message; `-` reads it from stdin.")] = "-",
    session: SessionOption = None,
    profile: Profile = "",
    model: Model = "",
    deadline: Deadline = 1800.0,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Send one message and print the answer as it comes."""
    message = _read(as_json) if text == "-" else text
    if not message.strip():
        fail("there is no text to send", Exit.USAGE, as_json=as_json)
    with (
        calling(target, api_key, Shown(tls, tls_cert, tls_key), as_json, session or "") as client,
        client.send(
            message, session=session, profile=profile, model=model, deadline=deadline
        ) as turn,
    ):
        ok = sending.show(client, turn, as_json=as_json)
    raise typer.Exit(Exit.DONE if ok else Exit.FAILED)


@app.command()
def chat(
    session: SessionOption = None,
    profile: Profile = "",
    model: Model = "",
    ask: Ask = False,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """Hold a conversation; in a pipe, each line is a message.

    Without --session it is a new one, whose name is told.
    """
    shown = Shown(tls, tls_cert, tls_key)
    with calling(target, api_key, shown, session=session or "") as client:
        try:
            policy, place = "ask" if ask else "", Place(target, shown)
            well = chatting.talk(client, place, session, profile, model, policy, os.environ)
        except chatting.Missing as missing:
            fail(f'{missing} is not installed: pip install "samovar[chat]"', Exit.FAILED)
    raise typer.Exit(Exit.DONE if well else Exit.FAILED)


@sessions.command("list")
def list_sessions(
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """List your sessions, most recently used first."""
    with calling(target, api_key, Shown(tls, tls_cert, tls_key), as_json) as client:
        _list(client, as_json)


@sessions.command("show")
def show_session(
    name: SessionName,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one session."""
    with calling(target, api_key, Shown(tls, tls_cert, tls_key), as_json, name) as client:
        session = client.get_session(name)
        lines = [json.dumps(sending.plain(session))] if as_json else listing.fields(session)
        print("\n".join(lines))


@sessions.command("close")
def close_session(
    name: SessionName,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
) -> None:
    """End a session for good: its conversation is forgotten."""
    with calling(target, api_key, Shown(tls, tls_cert, tls_key), session=name) as client:
        print("closed" if client.close_session(name) else "there was none")


@app.command()
def top(
    sort: Annotated[Sort, typer.Option(help="What rows are ordered by, most first.")] = Sort.WAIT,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    interval: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="Seconds between two snapshots.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one snapshot and end.")] = False,
    target: OperatorTarget = None,
    api_key: OperatorKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Watch the pools and processes of a service, of all tenants: for operators."""
    where = target or operator_target()
    place = Place(where, Shown(tls, tls_cert, tls_key))
    shown = check(place, api_key, as_json=as_json)
    options = topping.Options(where, api_key, shown, tenant, interval, sort, once, as_json)
    with failing(place, as_json, said=topping.why):
        try:
            asyncio.run(topping.show(options))
        except ImportError:
            fail('rich is not installed: pip install "samovar[top]"', Exit.FAILED)


@app.command()
def usage(
    first: FirstDay = None,
    last: LastDay = None,
    tenant: Annotated[
        str | None,
        typer.Option(help="Of this tenant, or of `all`: asks the operator's listener."),
    ] = None,
    target: EitherTarget = None,
    api_key: EitherKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Tell what your turns used, by day and model; without --from, of the last 30 days."""
    days = tuple(day.date() if day is not None else None for day in (first, last))
    shown = Shown(tls, tls_cert, tls_key)
    if tenant is None:
        where = target or os.environ.get("SAMOVAR_TARGET") or DEFAULT_TARGET
        key = api_key or os.environ.get("SAMOVAR_API_KEY")
        with calling(where, key, shown, as_json) as client:
            spending.show(client.usage(*days), as_json=as_json)
        return
    key = api_key or os.environ.get("SAMOVAR_OPERATOR_KEY") or os.environ.get("SAMOVAR_API_KEY")
    place = Place(target or operator_target(), shown)
    used = check(place, key, as_json=as_json)
    with (
        failing(place, as_json, said=topping.why),
        samovar.Operator(place.target, api_key=key, tls=used) as operator,
    ):
        every = operator.list_usage("" if tenant == "all" else tenant, *days)
        spending.show([*every], as_json=as_json)


@app.command()
def health(
    service: Annotated[
        str, typer.Option(help="Empty: whether it lives; the default: whether it serves turns.")
    ] = "samovar.v1.Session",
    deadline: Deadline = 3.0,
    target: Target = DEFAULT_TARGET,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    api_key: ApiKey = None,
) -> None:
    """Tell whether the service is well: exit code 0, or another.

    The address for probes (server.health_listen) needs no key, that for callers does.
    """
    from samovar.health import check as asked

    place = Place(target, Shown(tls, tls_cert, tls_key))
    shown = check(place, api_key)
    try:
        status = asked(Transport(target, api_key, shown), service, deadline)
    except ValueError as error:
        fail(str(error), Exit.USAGE)
    if status.startswith(("unavailable", "deadline exceeded")):
        fail(place.obstacle() or f"{target}: {status}", Exit.UNREACHABLE)
    if status == "unimplemented":
        fail(f"what answers at {target} tells no health: is it a samovard?", Exit.FAILED)
    if status != "serving":
        fail(f"{target}: {status}", Exit.FAILED)
    print(status)


def _read(as_json: bool) -> str:
    """Return the content of stdin; exit if that is not text."""
    text = None
    with contextlib.suppress(UnicodeDecodeError):
        text = sys.stdin.read()
    if text is None or not streams.is_text(text):
        said = f"what is on stdin is not {sys.stdin.encoding.upper()}"
        fail(said, Exit.USAGE, as_json=as_json)
    return text


def _list(client: samovar.Client, as_json: bool) -> None:
    if not as_json and sys.stdout.isatty():
        found = [*client.list_sessions()]
        if not found:
            print('there are no sessions yet: "samovar chat" begins one')
            return
        with contextlib.suppress(ImportError):
            from rich.console import Console

            Console().print(listing.table(found))
            return
    for session in client.list_sessions():
        print(json.dumps(sending.plain(session)) if as_json else listing.line(session))


def main() -> None:
    """Run the program."""
    # A fork would warn and gains nothing: this program starts no processes.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    streams.open_missing()
    if "GRPC_VERBOSITY" not in os.environ:
        streams.keep_stderr()
    streams.run("samovar", _checked)


def _checked() -> None:
    if not all(map(streams.is_text, sys.argv)):
        streams.tell("samovar: an argument is not UTF-8")
        sys.exit(Exit.USAGE)
    app()
