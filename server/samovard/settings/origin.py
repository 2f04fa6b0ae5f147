"""Each setting in force and its source; secrets are only shown as set or unset.

Knows the sources of the settings. Knows nothing of how they are shown.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from samovard.settings import PREFIX, Settings, Sources

DEFAULT = "default"
OPTION = "--listen"
#: The values in force where these are unset.
_COMPUTED: dict[str, Callable[[Settings], Any]] = {
    "agent.root": lambda settings: settings.root,
    "isolation.network_require": lambda settings: settings.required_network,
    "isolation.require": lambda settings: settings.required_isolation,
    "pool.max_starting": lambda settings: settings.max_starting,
    "pool.queue_limit": lambda settings: settings.queue_limit,
    "pool.slots": lambda settings: settings.slots,
    "server.drain_wait": lambda settings: settings.server.drains_for,
    "server.operator_listen": lambda settings: f"unix:{settings.directory}/operator.sock",
    "state.directory": lambda settings: settings.directory,
    "state.url": lambda settings: settings.url,
}
_USER = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, slots=True)
class Row:
    """A setting: its name, its value as JSON has it, and its source."""

    name: str
    value: Any
    source: str


def rows(settings: Settings, sources: Sources, config: Path | None) -> Iterator[Row]:
    """Yield every setting in the order of the documentation, then the credential's variable."""
    for name, value in _leaves(settings):
        source = _source(name.split("."), sources, config)
        if value in (None, "") and name in _COMPUTED:
            value = _COMPUTED[name](settings)
        yield Row(name, _shown(value), source)
    variable = settings.credentials.variable
    if settings.credentials.provider == "env":
        yield Row(variable, "set" if os.environ.get(variable) else "unset", "environment")


def _leaves(model: BaseModel, above: str = "") -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value, key = getattr(model, name), f"{above}{name}"
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{key}.")
        elif isinstance(value, dict):
            for each, inner in value.items():
                if isinstance(inner, BaseModel):
                    yield from _leaves(inner, f"{key}.{each}.")
                else:  # variables and headers, which may be more than they should
                    yield f"{key}.{each}", "set"
        else:
            yield key, value


def _source(path: list[str], sources: Sources, config: Path | None) -> str:
    if _holds(sources.options, path):
        return OPTION
    if _holds(sources.environment, path):
        # Either the setting's own variable, or one that holds a table around it.
        names = {name.lower(): name for name in os.environ}
        ends = (PREFIX + "__".join(path[:end]) for end in range(len(path), 0, -1))
        return next((names[end.lower()] for end in ends if end.lower() in names), PREFIX)
    return str(config) if _holds(sources.file, path) else DEFAULT


def _holds(table: Any, path: list[str]) -> bool:
    for key in path:
        if not isinstance(table, dict) or key not in table:
            return False
        table = table[key]
    return True


def _shown(value: Any) -> Any:
    if isinstance(value, tuple):
        return [*value]
    if isinstance(value, Path):
        return str(value)
    # A URL with a password in it is a secret.
    return "set" if isinstance(value, str) and _USER.search(value) else value
