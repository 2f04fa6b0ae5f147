"""The arguments that commands of `samovar` share."""

from datetime import datetime
from typing import Annotated

import typer

from samovar.completion import session_names

Target = Annotated[
    str, typer.Option(envvar="SAMOVAR_TARGET", help="Where samovard is: host:port or unix:/path.")
]
ApiKey = Annotated[
    str | None, typer.Option(envvar="SAMOVAR_API_KEY", help="The key of your tenant.")
]
UseTls = Annotated[
    bool, typer.Option("--tls", help="Use TLS, with the authorities that gRPC brings.")
]
TlsCert = Annotated[
    str | None,
    typer.Option(
        envvar="SAMOVAR_TLS_CERT", metavar="FILE", help="Your certificate, for --tls: a PEM file."
    ),
]
TlsKey = Annotated[
    str | None,
    typer.Option(envvar="SAMOVAR_TLS_KEY", metavar="FILE", help="The key of your certificate."),
]
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


def _seconds(value: float) -> float:
    if not 0 < value <= 1e9:
        raise typer.BadParameter(f"{value} is not a number of seconds to wait")
    return value


Deadline = Annotated[float, typer.Option(callback=_seconds, help="Give up after so many seconds.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="One JSON object a line, for machines; a failure is one, too."),
]
OperatorTarget = Annotated[
    str | None,
    typer.Option(
        envvar="SAMOVAR_OPERATOR",
        help="The operator's listener; by default the first socket that is found.",
    ),
]
OperatorKey = Annotated[
    str | None,
    typer.Option(
        envvar=["SAMOVAR_OPERATOR_KEY", "SAMOVAR_API_KEY"], help="A key of the scope admin."
    ),
]
#: Of a command that asks the callers' or the operator's listener.
EitherTarget = Annotated[
    str | None, typer.Option(help="Where samovard is, by default as for other commands.")
]
EitherKey = Annotated[
    str | None, typer.Option(help="Your key, or an operator's, by default as for other commands.")
]
FirstDay = Annotated[
    datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day, in UTC.")
]
LastDay = Annotated[
    datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day; else today.")
]
