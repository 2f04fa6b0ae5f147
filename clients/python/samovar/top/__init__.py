"""`samovar top`: show the pools and processes of a service, until told to stop.

A terminal has Rich, from the extra `top`, and single keys; a pipe gets one picture or one line of
JSON for each snapshot.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass

import grpc

from samovar.errors import (
    CredentialInvalid,
    DeadlineExceeded,
    Draining,
    SamovarError,
    ScopeMissing,
    SessionNotFound,
)
from samovar.operating import AsyncOperator
from samovar.pools import PoolSnapshot
from samovar.reach import Place
from samovar.top.figures import Changes, Sort, ordered
from samovar.transport import Tls
from samovar.words import said

__all__ = ["Options", "Sort", "show", "why"]

PATIENCE = 10.0  # seconds for the first snapshot
MOST = 1000  # rows of each kind that a server sends at most
PIPE = 500  # columns of a picture that goes into a pipe

Snapshots = AsyncGenerator[PoolSnapshot, None]


@dataclass(frozen=True, slots=True)
class Options:
    """What to show, and how."""

    target: str
    api_key: str | None = None
    tls: Tls | None = None
    tenant: str = ""
    interval: float = 1.0
    sort: Sort = Sort.WAIT
    once: bool = False
    as_json: bool = False


async def show(options: Options) -> None:
    """Show snapshots until the server is gone or a person quits; with `once`, show one.

    Raise `SamovarError`, and `ImportError` without Rich.
    """
    async with (
        AsyncOperator(options.target, api_key=options.api_key, tls=options.tls) as operator,
        contextlib.aclosing(operator.watch(options.interval, options.tenant, MOST)) as snapshots,
    ):
        first = await _first(snapshots)
        if options.as_json:
            await _lines(first, snapshots, options)
        elif options.once or not _on_terminal():
            await _pictures(first, snapshots, options)
        else:
            from samovar.top.live import Live

            await Live(options.sort, options.interval, operator).run(first, snapshots)


async def _first(snapshots: Snapshots) -> PoolSnapshot:
    try:
        async with asyncio.timeout(PATIENCE):
            return await anext(snapshots)
    except TimeoutError:
        raise DeadlineExceeded(
            f"no answer within {PATIENCE:g} s", code=grpc.StatusCode.DEADLINE_EXCEEDED
        ) from None


def _on_terminal() -> bool:
    dumb = os.environ.get("TERM", "dumb") == "dumb"
    return sys.stdin.isatty() and sys.stdout.isatty() and not dumb


async def _lines(first: PoolSnapshot, snapshots: Snapshots, options: Options) -> None:
    print(json.dumps(asdict(ordered(first, options.sort))), flush=True)
    if not options.once:
        async for snapshot in snapshots:
            print(json.dumps(asdict(ordered(snapshot, options.sort))), flush=True)


async def _pictures(first: PoolSnapshot, snapshots: Snapshots, options: Options) -> None:
    from rich.console import Console

    from samovar.top.screen import draw

    console, changes = Console(highlight=False), Changes()
    if not console.is_terminal:
        console.width = PIPE  # nothing that a program could look for is cut off

    def show(snapshot: PoolSnapshot) -> None:
        rows = ordered(snapshot, options.sort)
        console.print(draw(rows, changes.take(snapshot), console.width))

    show(first)
    if not options.once:
        async for snapshot in snapshots:
            console.print()
            show(snapshot)


def why(error: SamovarError, place: Place, session: str = "") -> str:
    """Return a line that says why nothing can be shown, and what to do."""
    if isinstance(error, (CredentialInvalid, ScopeMissing)):
        return (
            'a key of the scope admin is needed ("samovard keys add NAME --admin"): '
            "set --api-key or SAMOVAR_OPERATOR_KEY"
        )
    if isinstance(error, SessionNotFound):
        return f"the tenant has no session {session}"
    if isinstance(error, Draining):
        return "the server is gone"
    if error.code is grpc.StatusCode.UNIMPLEMENTED:
        return f"{place.target} is not an operator's listener: set --target or SAMOVAR_OPERATOR"
    return said(error, place, session)
