"""Durations and sizes as people write them.

Durations are held in seconds, sizes in bytes. Knows nothing of which settings there are.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS |= {"day": 86400.0, "days": 86400.0}
_SIZES = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")


def _quantity(value: Any, units: dict[str, Any], what: str) -> Any:
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value)
    if match is None or match[2] not in units:
        raise ValueError(f"is not a {what} such as {'30 s' if what == 'duration' else '64 MiB'}")
    return float(match[1]) * units[match[2]]


def _seconds(value: Any) -> Any:
    return _quantity(value, _UNITS, "duration")


def _bytes(value: Any) -> Any:
    size = _quantity(value, _SIZES, "size")
    return round(size) if isinstance(size, float) else size


def _written(kind: Any, units: dict[str, Any]) -> Any:
    """Return the schema of a quantity as it may be written: a number, or a text with a unit."""
    pattern = rf"^\s*[0-9]+(\.[0-9]+)?\s*({'|'.join(filter(None, units))})?\s*$"
    return kind | Annotated[str, Field(pattern=pattern)]


_Seconds = _written(Annotated[float, Field(ge=0.0)], _UNITS)
_Bytes = _written(Annotated[int, Field(gt=0)], _SIZES)
Duration = Annotated[
    float, BeforeValidator(_seconds, json_schema_input_type=_Seconds), Field(ge=0.0)
]
Size = Annotated[int, BeforeValidator(_bytes, json_schema_input_type=_Bytes), Field(gt=0)]
