"""Permission requests where no person can be asked.

Knows the client. They are denied at once: no answer could come.
"""

import contextlib

from samovar.client import Client
from samovar.errors import PermissionNotFound
from samovar.events import PermissionRequested

NOBODY = "no person can be asked for permission here"


def deny(client: Client, session: str, request: PermissionRequested) -> None:
    """Deny a request of a session, unless it is resolved already. Raise `SamovarError`."""
    with contextlib.suppress(PermissionNotFound):
        client.deny(request.permission_id, session, message=NOBODY)
