"""`samovar`: what a person types.

Text goes to stdout and everything else to stderr, so that it can be piped.
"""

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer

import samovar
from samovar import chat as chatting
from samovar import listing, unasked
from samovar import top as topping
from samovar.completion import session_names
from samovar.errors import SamovarError
from samovar.operating import operator_target
from samovar.top.figures import Sort
from samovar.transport import DEFAULT_TARGET, tls_of
from samovar.words import said

app = typer.Typer(
    help="Talk to an agent that stays warm.", no_args_is_help=True, add_completion=True
)
sessions = typer.Typer(help="Look at sessions and close them.", no_args_is_help=True)
app.add_typer(sessions, name="sessions")

Deny = Callable[[samovar.PermissionRequested], None]

Target = Annotated[
    str, typer.Option(envvar="SAMOVAR_TARGET", help="Where samovard is: host:port or unix:/path.")
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="SAMOVAR_API_KEY", help="The key of your tenant.")
]
UseTls = Annotated[bool, typer.Option("--tls", help="Use TLS, with the machine's own roots.")]
SessionName = Annotated[
    str, typer.Argument(help="The session's name.", autocompletion=session_names)
]
SessionOption = Annotated[
    str | None, typer.Option(help="The conversation's name.", autocompletion=session_names)
]
Ask = Annotated[
    bool, typer.Option("--ask", help="Be asked before a new session's agent uses a tool.")
]
Profile = Annotated[str, typer.Option(help="The profile of a new session.")]
Model = Annotated[str, typer.Option(help="The model of a new session.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")]


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Talk to an agent that stays warm."""
    if version:
        print(f"samovar {samovar.__version__}")
        raise typer.Exit


app.info.invoke_without_command = True


@app.command()
def send(
    text: Annotated[str, typer.Argument(help="The message; `-` reads it from stdin.")] = "-",
    session: SessionOption = None,
    profile: Profile = "",
    model: Model = "",
    deadline: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 1800.0,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    as_json: AsJson = False,
) -> None:
    """Send one message and print the answer as it comes."""
    message = sys.stdin.read() if text == "-" else text
    if not message.strip():
        fail("there is no text to send", 2)
    with _client(target, api_key, tls) as client, _breaks_told():
        try:
            with client.send(
                message, session=session, profile=profile, model=model, deadline=deadline
            ) as turn:
                printed = _print_json if as_json else _print_text
                ok = printed(turn, lambda event: _deny(client, turn, event))
        except SamovarError as error:
            fail(said(error, target), 1)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    raise typer.Exit(0 if ok else 1)


@app.command()
def chat(
    session: SessionOption = None,
    profile: Profile = "",
    model: Model = "",
    ask: Ask = False,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
) -> None:
    """Hold a conversation; in a pipe, each line is a message.

    Without --session it is a new one, whose name is told.
    """
    with _client(target, api_key, tls) as client:
        try:
            policy = "ask" if ask else ""
            well = chatting.talk(client, target, session, profile, model, policy, os.environ)
        except chatting.Missing as missing:
            fail(f'{missing} is not installed: pip install "samovar[chat]"', 1)
        except SamovarError as error:
            fail(said(error, target), 1)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    raise typer.Exit(0 if well else 1)


@sessions.command("list")
def list_sessions(
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    as_json: AsJson = False,
) -> None:
    """List your sessions, most recently used first."""
    with _client(target, api_key, tls) as client:
        try:
            _list(client, as_json)
        except SamovarError as error:
            fail(said(error, target), 1)


@sessions.command("show")
def show_session(
    name: SessionName,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    as_json: AsJson = False,
) -> None:
    """Show one session."""
    with _client(target, api_key, tls) as client:
        try:
            session = client.get_session(name)
            lines = [json.dumps(_plain(session))] if as_json else listing.fields(session)
            print("\n".join(lines))
        except SamovarError as error:
            fail(said(error, target), 1)


@sessions.command("close")
def close_session(
    name: SessionName,
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
) -> None:
    """End a session for good: its conversation is forgotten."""
    with _client(target, api_key, tls) as client:
        try:
            print("closed" if client.close_session(name) else "there was none")
        except SamovarError as error:
            fail(said(error, target), 1)


@app.command()
def top(
    sort: Annotated[Sort, typer.Option(help="What rows are ordered by, most first.")] = Sort.WAIT,
    tenant: Annotated[str, typer.Option(help="Only this tenant.")] = "",
    interval: Annotated[
        float, typer.Option(min=0.1, max=60.0, help="Seconds between two snapshots.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Show one snapshot and end.")] = False,
    target: Annotated[
        str | None,
        typer.Option(
            envvar="SAMOVAR_OPERATOR",
            help="The operator's listener; by default the first socket that is found.",
        ),
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar=["SAMOVAR_OPERATOR_KEY", "SAMOVAR_API_KEY"], help="A key of the scope admin."
        ),
    ] = None,
    tls: UseTls = False,
    as_json: AsJson = False,
) -> None:
    """Watch the pools and processes of a service, of all tenants: for operators."""
    where = target or operator_target()
    options = topping.Options(where, api_key, tls, tenant, interval, sort, once, as_json)
    try:
        asyncio.run(topping.show(options))
    except ValueError as error:
        fail(str(error), 2)
    except SamovarError as error:
        fail(topping.why(error, where), 1)
    except ImportError:
        fail('rich is not installed: pip install "samovar[top]"', 1)
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@contextlib.contextmanager
def _breaks_told() -> Iterator[None]:
    """Tells, while it is open, that a stream broke and is joined again."""
    log, handler = logging.getLogger("samovar"), logging.StreamHandler()
    handler.setFormatter(logging.Formatter("samovar: %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)


@app.command()
def health(
    service: Annotated[
        str, typer.Option(help="Empty: whether it lives; the default: whether it serves turns.")
    ] = "samovar.v1.Session",
    deadline: Annotated[float, typer.Option(help="Give up after so many seconds.")] = 3.0,
    target: Target = DEFAULT_TARGET,
    tls: UseTls = False,
) -> None:
    """Tell whether the service is well: exit code 0, or 1. For probes; needs no key."""
    from samovar.health import check

    try:
        status = check(target, service, tls_of(tls), deadline)
    except ValueError as error:
        fail(str(error), 2)
    if status != "serving":
        fail(f"{target}: {status}", 1)
    print(status)


def _client(target: str, api_key: str | None, tls: bool) -> samovar.Client:
    try:
        return samovar.Client(target, api_key=api_key, tls=tls)
    except ValueError as error:
        fail(str(error), 2)


def _list(client: samovar.Client, as_json: bool) -> None:
    if not as_json and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            from rich.console import Console

            Console().print(listing.table(client.list_sessions()))
            return
    for session in client.list_sessions():
        print(json.dumps(_plain(session)) if as_json else listing.line(session))


def _deny(client: samovar.Client, turn: samovar.Turn, event: samovar.PermissionRequested) -> None:
    """Denies what the agent asks: whoever sends one message is not there to answer."""
    print(f"samovar: {chatting.refused(event)}: {unasked.NOBODY}", file=sys.stderr)
    unasked.deny(client, turn.session, event)


def _print_text(turn: samovar.Turn, deny: Deny) -> bool:
    ok, column = True, 0
    for event in turn:
        match event:
            case samovar.TextDelta(text=text) if not event.parent_tool_use_id:
                sys.stdout.write(text)
                sys.stdout.flush()
                column = 0 if text.endswith("\n") else 1
            case samovar.PermissionRequested():
                deny(event)
            case samovar.Notice():
                print(f"samovar: {event.message}", file=sys.stderr)
            case samovar.TurnFinished():
                ok = event.outcome is samovar.Outcome.COMPLETED
                if column:
                    print()
                if not ok:
                    why = "; ".join(event.errors) or event.outcome.name.lower()
                    print(f"samovar: {why}", file=sys.stderr)
    return ok


def _print_json(turn: samovar.Turn, deny: Deny) -> bool:
    ok = True
    for event in turn:
        if isinstance(event, samovar.PermissionRequested):
            deny(event)
        print(json.dumps({"event": type(event).__name__} | _plain(event)), flush=True)
        if isinstance(event, samovar.TurnFinished):
            ok = event.outcome is samovar.Outcome.COMPLETED
    return ok


def _plain(value: Any) -> dict[str, Any]:
    plain = asdict(value)
    plain.pop("raw_json", None)
    for name in ("start_mode", "outcome", "resolution"):
        if name in plain:
            plain[name] = plain[name].name.lower()
    return plain


def fail(message: str, code: int) -> NoReturn:
    """Prints one line and exits."""
    print(f"samovar: {message}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    """Runs the program."""
    # A fork would warn and gains nothing: this program starts no processes.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    app()
