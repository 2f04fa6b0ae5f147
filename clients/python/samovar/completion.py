"""What a shell may complete: the names of sessions.

Asks the service for a moment only. Whoever presses Tab wants names or nothing: whatever
goes wrong gives none.
"""

import asyncio

import typer

from samovar.aio import AsyncClient
from samovar.errors import SamovarError
from samovar.transport import DEFAULT_TARGET, Shown, Tls

PATIENCE = 0.7
MOST = 200


def session_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Gives the sessions of which the name begins so; none if nothing answers in time."""
    given = ctx.params
    try:
        files = given.get("tls_cert"), given.get("tls_key")
        tls = Shown(bool(given.get("tls")), *files).read()
        target = given.get("target") or DEFAULT_TARGET
        names = asyncio.run(_names(target, given.get("api_key"), tls))
    except (SamovarError, TimeoutError, ValueError, OSError):
        return []
    return [name for name in names if name.startswith(incomplete)]


async def _names(target: str, api_key: str | None, tls: Tls | None) -> list[str]:
    names: list[str] = []
    async with asyncio.timeout(PATIENCE), AsyncClient(target, api_key=api_key, tls=tls) as client:
        async for session in client.list_sessions():
            names.append(session.session_id)
            if len(names) == MOST:
                break
    return names
