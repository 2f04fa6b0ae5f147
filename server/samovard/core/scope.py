"""Work that outlives the call that asked for it. Knows nothing of what the work is."""

from collections.abc import Coroutine
from typing import Any

import structlog

_log = structlog.get_logger("samovard.scope")


async def guarded(work: Coroutine[Any, Any, None], name: str) -> None:
    """Keeps a defect in one piece of work from ending the scope that all share."""
    try:
        await work
    except Exception:
        _log.exception("defect", work=name)
