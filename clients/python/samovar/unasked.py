"""What becomes of a request for permission where no person can be asked.

Knows the client. It is denied at once: nothing waits for an answer that cannot come.
"""

import contextlib

from samovar.client import Client
from samovar.errors import PermissionNotFound
from samovar.events import PermissionRequested

NOBODY = "nobody can be asked for permission here"


def deny(client: Client, session: str, request: PermissionRequested) -> None:
    """Denies a request of a session, unless it is over already. Raises `SamovarError`."""
    with contextlib.suppress(PermissionNotFound):
        client.deny(request.permission_id, session, message=NOBODY)
