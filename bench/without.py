"""`python -m bench.without`: samovard without the calls of its telemetry.

The cost of a service that could not be observed. Marks are still taken, since a turn's timings are
part of its answer; of calls, turns and the loop nothing is recorded.
"""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from samovard.telemetry import stages


def strip() -> None:
    """Remove the calls, before any module has imported them by name."""
    _replace(stages, lambda of, name: of.mark(name), "stage")
    from samovard.core.pool import telemetry as processes
    from samovard.core.turn import telemetry
    from samovard.edge import call_telemetry
    from samovard.telemetry.facts import TurnFacts

    _replace(telemetry, _nothing, "waited", "began", "noted", "reported", "judged")
    _replace(processes, _nothing, "leased")
    _replace(TurnFacts, _nothing, "waits_for", "turn_ended", "call_ended")
    _replace(call_telemetry, _nothing, "admitted", "failed")
    _replace(call_telemetry, lambda context, response: context.write(response), "write")
    _replace(call_telemetry.CallTelemetry, _unwatched, "intercept_service")


def _replace(owner: Any, by: Callable[..., Any], *names: str) -> None:
    for name in names:
        getattr(owner, name)  # raises if a name has gone, so that this cannot pass unnoticed
        setattr(owner, name, by)


def _nothing(*_: object) -> None:
    """Do nothing, in place of a call."""


async def _unwatched(_: Any, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
    from samovard.edge import call_telemetry
    from samovard.telemetry.facts import CallFacts

    call_telemetry._current.set(CallFacts.unwatched(time.monotonic, time.time()))
    return await continuation(details)


if __name__ == "__main__":
    strip()
    from samovard.cli import main

    main()
