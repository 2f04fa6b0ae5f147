"""Controls of the service that can be taken out, each by replacing what stands at a place.

Only the service that an attack is tried on is changed, in its own process.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from security import lacking_core, lacking_edge

OUT: Mapping[str, Mapping[str, Any]] = {**lacking_edge.OUT, **lacking_core.OUT}


#: Places that a service looks at while it starts, and not again.
_AT_START = (
    "app.",
    "authentication.",
    "edge.certificates.",
    "edge.gate.Gate.__init__",
    "edge.gate.PROBE_WATCHERS",
    "edge.gate.Permits",
    "edge.gate.SESSION",
    "edge.gate.public_table",
    "edge.call_telemetry.CallTelemetry.__init__",
    "edge.server.",
    "telemetry.log.",
)


def at_start(name: str) -> bool:
    """Return True if a control must be out before the service starts."""
    return any(place.startswith(_AT_START) for place in OUT[name])


def take_out(name: str) -> Callable[[], None]:
    """Take a control out of this process. Return what puts it back."""
    before = []
    for place, replacement in OUT[name].items():
        owner, attribute = find(place)
        before.append((owner, attribute, vars(owner)[attribute]))
        setattr(owner, attribute, replacement)

    def put_back() -> None:
        for each in before:
            setattr(*each)

    return put_back


def find(place: str) -> tuple[Any, str]:
    """Return what holds a place of `samovard`, and its name there. Raise if there is none."""
    parts = place.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            owner: Any = import_module(".".join(("samovard", *parts[:count])))
        except ModuleNotFoundError:
            continue
        for part in parts[count:-1]:
            owner = getattr(owner, part)
        if not hasattr(owner, parts[-1]):
            break
        return owner, parts[-1]
    raise LookupError(f"the service has no {place}")
