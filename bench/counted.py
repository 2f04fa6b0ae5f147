"""`python -m bench.counted`: a samovard that counts the calls of one turn.

The fourth `Send` is counted, from its arrival to its status: each call of a function of the service
on the event loop's thread, a coroutine's resumption being one. When it has ended, the counts are in
the file `calls.json` of the home directory.
"""

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import FrameType
from typing import Any

import samovard

COUNTED = 4  # by then every cache is filled
FILE = "calls.json"
_PACKAGE = Path(samovard.__file__).parent
_PREFIX = f"{_PACKAGE}/"
_LOOP = "_run_once"  # of asyncio: the frames below it belong to the program that runs the loop
#: Work of a service that also goes on without any turn.
_BACKGROUND = {"core/pool/background.py:repeat", "telemetry/loop_lag.py:_beat"}


def place(frame: FrameType) -> str:
    """Return the file of a frame's code below the package, empty if it is not the service's."""
    file = frame.f_code.co_filename
    return file.removeprefix(_PREFIX) if file.startswith(_PREFIX) else ""


def room(file: str) -> str:
    """Return the directory of a file; of those beside each other at the top, `app`."""
    return str(Path(file).parent) if "/" in file else "app"


class Calls:
    """Counts of calls by room, and of calls that come from another file and from another room."""

    def __init__(self) -> None:
        self.all: Counter[str] = Counter()
        self.crossings: Counter[str] = Counter()  # by the room that is entered
        self.between: Counter[str] = Counter()

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        """Count a call; this is the function for `sys.setprofile`."""
        if event != "call" or not (file := place(frame)):
            return
        callers = _callers(frame)
        if any(f"{place(each)}:{each.f_code.co_name}" in _BACKGROUND for each in (frame, *callers)):
            return
        self.all[room(file)] += 1
        caller = place(callers[0]) if callers else file
        if caller != file:
            self.crossings[room(file)] += 1
        if room(caller) != room(file):
            self.between[room(file)] += 1


def _callers(frame: FrameType) -> list[FrameType]:
    """Return the callers that belong to the service, the nearest first."""
    found, caller = [], frame.f_back
    while caller is not None and caller.f_code.co_name != _LOOP:
        if place(caller):
            found.append(caller)
        caller = caller.f_back
    return found


def count(file: Path) -> None:
    """Count the fourth `Send`, and write the counts to a file."""
    from samovard.edge.call_telemetry import CallTelemetry
    from samovard.telemetry.facts import SEND

    calls, sends = Calls(), 0
    began, ended = CallTelemetry.intercept_service, CallTelemetry._ended

    async def intercept(
        self: Any, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        nonlocal sends
        sends += details.method == f"/{SEND}"
        if sends == COUNTED:
            sys.setprofile(calls)
        return await began(self, continuation, details)

    def end(self: Any, call: Any, status: str) -> None:
        ended(self, call, status)
        if sends == COUNTED and call.method == SEND:
            sys.setprofile(None)
            kinds = {"calls": calls.all, "crossings": calls.crossings, "between": calls.between}
            beside = file.with_suffix(".new")
            beside.write_text(json.dumps(kinds))
            beside.rename(file)

    setattr(CallTelemetry, "intercept_service", intercept)  # noqa: B010  # for the checker of types
    setattr(CallTelemetry, "_ended", end)  # noqa: B010  # the same


if __name__ == "__main__":
    count(Path.home() / FILE)
    from samovard.cli import main

    main()
