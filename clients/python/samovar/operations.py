"""`samovar operate`: what an operator does to tenants' turns and sessions."""

import contextlib
import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

import samovar
from samovar.arguments import AsJson, OperatorKey, OperatorTarget, TlsCert, TlsKey, UseTls
from samovar.calling import check, fail, failing
from samovar.exits import EPILOG, Exit
from samovar.operating import operator_target
from samovar.reach import Place
from samovar.top import why
from samovar.transport import Shown

app = typer.Typer(
    help="Hold up, interrupt, close and replace what tenants have: for operators.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
)
Tenant = Annotated[str, typer.Argument(help="The tenant.")]
AnyTenant = Annotated[str, typer.Argument(help="The tenant, or `all`.")]
Session = Annotated[str, typer.Argument(help="The session's name.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
ALL = "all"


@app.command()
def pause(
    tenant: AnyTenant,
    target: OperatorTarget = None,
    api_key: OperatorKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Let no turn of a tenant begin until `resume`; running turns go on."""
    with _operator(target, api_key, Shown(tls, tls_cert, tls_key), as_json) as operator:
        operator.pause("" if tenant == ALL else tenant)
        _tell({"paused": tenant}, f"turns of {_whom(tenant)} wait", as_json=as_json)


@app.command()
def resume(
    tenant: AnyTenant,
    target: OperatorTarget = None,
    api_key: OperatorKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Let turns of a tenant begin again."""
    with _operator(target, api_key, Shown(tls, tls_cert, tls_key), as_json) as operator:
        operator.resume("" if tenant == ALL else tenant)
        _tell({"resumed": tenant}, f"turns of {_whom(tenant)} begin", as_json=as_json)


@app.command()
def drain(
    tenant: Tenant,
    profile: Annotated[str, typer.Option(help="Only processes of this profile.")] = "",
    target: OperatorTarget = None,
    api_key: OperatorKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Replace a tenant's processes: idle ones at once, others when their turn ends."""
    with _operator(target, api_key, Shown(tls, tls_cert, tls_key), as_json) as operator:
        done = operator.drain(tenant, profile)
        said = f"{done.stopped} stop now, {done.marked} when their turn ends"
        _tell({"stopped": done.stopped, "marked": done.marked}, said, as_json=as_json)


@app.command()
def interrupt(
    tenant: Tenant,
    session: Session,
    target: OperatorTarget = None,
    api_key: OperatorKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Interrupt the turn that runs in a session."""
    with _operator(target, api_key, Shown(tls, tls_cert, tls_key), as_json, session) as operator:
        turn = operator.interrupt_session(tenant, session)
        said = f"interrupted {turn}" if turn else "no turn runs"
        _tell({"turn_id": turn}, said, as_json=as_json)


@app.command()
def close(
    tenant: Tenant,
    session: Session,
    yes: Yes = False,
    target: OperatorTarget = None,
    api_key: OperatorKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """End a tenant's session for good: its conversation is forgotten. Asks first."""
    if not yes and not sys.stdin.isatty():
        fail("nobody can be asked: add --yes", Exit.USAGE, as_json=as_json)
    if not yes and not typer.confirm(f"close {session} of {tenant} for good?", err=True):
        fail("nothing is closed", Exit.FAILED, as_json=as_json)
    with _operator(target, api_key, Shown(tls, tls_cert, tls_key), as_json, session) as operator:
        closed = operator.close_tenant_session(tenant, session)
        _tell({"closed": closed}, "closed" if closed else "there was none", as_json=as_json)


@app.command()
def unblock(
    tenant: Tenant,
    session: Session,
    target: OperatorTarget = None,
    api_key: OperatorKey = None,
    tls: UseTls = False,
    tls_cert: TlsCert = None,
    tls_key: TlsKey = None,
    as_json: AsJson = False,
) -> None:
    """Let turns run again in a session that is blocked, or whose processes kept ending."""
    with _operator(target, api_key, Shown(tls, tls_cert, tls_key), as_json, session) as operator:
        was = operator.unblock_session(tenant, session)
        said = "unblocked" if was else "it was not blocked; it may start at once"
        _tell({"was_blocked": was}, said, as_json=as_json)


@contextlib.contextmanager
def _operator(
    target: str | None, api_key: str | None, shown: Shown, as_json: bool, session: str = ""
) -> Iterator[samovar.Operator]:
    place = Place(target or operator_target(), shown)
    tls = check(place, api_key, as_json=as_json)
    with (
        failing(place, as_json, session, said=why),
        samovar.Operator(place.target, api_key=api_key, tls=tls) as operator,
    ):
        yield operator


def _whom(tenant: str) -> str:
    return "all tenants" if tenant == ALL else tenant


def _tell(values: dict[str, object], said: str, *, as_json: bool) -> None:
    print(json.dumps(values) if as_json else said)
