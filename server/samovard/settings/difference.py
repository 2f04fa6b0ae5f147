"""The settings that differ between two readings. Knows nothing of what they are used for."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel


def differences(old: BaseModel, new: BaseModel, above: str = "") -> Iterator[str]:
    """Yield the names of settings that differ; for a table that only one side has, its own name."""
    for name in type(old).model_fields:
        yield from _differ(getattr(old, name), getattr(new, name), f"{above}{name}")


def _differ(old: Any, new: Any, name: str) -> Iterator[str]:
    if old == new:
        return
    if isinstance(old, BaseModel) and isinstance(new, BaseModel):
        yield from differences(old, new, f"{name}.")
    elif isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differ(old.get(key), new.get(key), f"{name}.{key}")
    else:
        yield name
