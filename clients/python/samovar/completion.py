"""Shell completion of session names.

The service is asked with a short deadline. Any error completes to nothing: a message would disturb
the command line.
"""

import asyncio

import typer

from samovar.aio import AsyncClient
from samovar.errors import SamovarError
from samovar.transport import DEFAULT_TARGET, Shown, Tls

PATIENCE = 0.7
MOST = 200


def session_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the sessions whose name begins with `incomplete`; none if there is no answer in
    time.
    """
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
