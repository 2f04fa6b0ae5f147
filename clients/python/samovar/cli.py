"""`samovar`: what a person types.

Text goes to stdout and everything else to stderr, so that it can be piped.
"""

import json
import os
import sys
from dataclasses import asdict
from typing import Annotated, Any, NoReturn

import typer

import samovar
from samovar.errors import CallBroken, SamovarError
from samovar.transport import DEFAULT_TARGET

app = typer.Typer(
    help="Talk to an agent that stays warm.", no_args_is_help=True, add_completion=True
)
sessions = typer.Typer(help="Look at sessions and close them.", no_args_is_help=True)
app.add_typer(sessions, name="sessions")

Target = Annotated[
    str, typer.Option(envvar="SAMOVAR_TARGET", help="Where samovard is: host:port or unix:/path.")
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="SAMOVAR_API_KEY", help="The key of your tenant.")
]
UseTls = Annotated[bool, typer.Option("--tls", help="Use TLS, with the machine's own roots.")]
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
    session: Annotated[str | None, typer.Option(help="The conversation's name.")] = None,
    profile: Annotated[str, typer.Option(help="The profile of a new session.")] = "",
    model: Annotated[str, typer.Option(help="The model of a new session.")] = "",
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
    with _client(target, api_key, tls) as client:
        try:
            with client.send(
                message, session=session, profile=profile, model=model, deadline=deadline
            ) as turn:
                ok = _print_json(turn) if as_json else _print_text(turn)
        except SamovarError as error:
            fail(_said(error, target), 1)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
    raise typer.Exit(0 if ok else 1)


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
            for session in client.list_sessions():
                _show(session, as_json)
        except SamovarError as error:
            fail(_said(error, target), 1)


@sessions.command("show")
def show_session(
    name: Annotated[str, typer.Argument(help="The session's name.")],
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
    as_json: AsJson = False,
) -> None:
    """Show one session."""
    with _client(target, api_key, tls) as client:
        try:
            _show(client.get_session(name), as_json)
        except SamovarError as error:
            fail(_said(error, target), 1)


@sessions.command("close")
def close_session(
    name: Annotated[str, typer.Argument(help="The session's name.")],
    target: Target = DEFAULT_TARGET,
    api_key: ApiKey = None,
    tls: UseTls = False,
) -> None:
    """End a session for good: its conversation is forgotten."""
    with _client(target, api_key, tls) as client:
        try:
            print("closed" if client.close_session(name) else "there was none")
        except SamovarError as error:
            fail(_said(error, target), 1)


def _client(target: str, api_key: str | None, tls: bool) -> samovar.Client:
    try:
        return samovar.Client(target, api_key=api_key, tls=tls)
    except ValueError as error:
        fail(str(error), 2)


def _print_text(turn: samovar.Turn) -> bool:
    ok, column = True, 0
    for event in turn:
        match event:
            case samovar.TextDelta(text=text) if not event.parent_tool_use_id:
                sys.stdout.write(text)
                sys.stdout.flush()
                column = 0 if text.endswith("\n") else 1
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


def _print_json(turn: samovar.Turn) -> bool:
    ok = True
    for event in turn:
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


def _show(session: samovar.Session, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_plain(session)))
    else:
        print(
            f"{session.session_id}\t{session.state}\t{session.turn_count} turns\t"
            f"{session.usage.cost_usd:.4f} USD"
        )


def _said(error: SamovarError, target: str) -> str:
    """Says in one line what went wrong and what to do."""
    if isinstance(error, CallBroken) and error.code.name == "UNAVAILABLE":
        return f'no samovard answers at {target}: start one with "samovard serve"'
    if isinstance(error, samovar.CredentialInvalid):
        return "the credential is not valid: set --api-key or SAMOVAR_API_KEY"
    cause = f" ({error.cause})" if error.cause else ""
    retry = f"; try again in {error.retry_delay:.1f} s" if error.retry_delay else ""
    return f"{error}{cause}{retry}"


def fail(message: str, code: int) -> NoReturn:
    """Prints one line and exits."""
    print(f"samovar: {message}", file=sys.stderr)
    raise typer.Exit(code)


def main() -> None:
    """Runs the program."""
    # A fork would warn and gains nothing: this program starts no processes.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    app()
