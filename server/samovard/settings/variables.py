"""Variables that look like settings but are none: they have no effect, and are reported.

Knows the names of settings. Knows nothing of their values.
"""

import difflib
import os
import re
import typing
from collections.abc import Iterator

from pydantic import BaseModel

from samovard.settings import PREFIX, Settings

#: Variables of the command line `samovar`.
CLIENT = {"SAMOVAR_TARGET", "SAMOVAR_API_KEY", "SAMOVAR_OPERATOR", "SAMOVAR_OPERATOR_KEY"}
CLIENT |= {"SAMOVAR_TLS_CERT", "SAMOVAR_TLS_KEY"}
#: Variables that Kubernetes sets in each pod beside a Service of the name `samovar`.
_LINK = re.compile(
    r"SAMOVAR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)


def unknown() -> Iterator[str]:
    """Yield a sentence for each variable that looks like a setting and is ignored."""
    for name in sorted(os.environ):
        section = name.removeprefix(PREFIX).partition("__")[0].lower()
        if not name.startswith(PREFIX) or section in Settings.model_fields:
            continue
        if name not in CLIENT and not _LINK.fullmatch(name):
            near = difflib.get_close_matches(name, [*_names()], 1, 0.8)
            hint = f", did you mean {near[0]}?" if near else ""
            yield f"{name} is not a setting and has no effect{hint}"


def _names() -> Iterator[str]:
    for section, field in Settings.model_fields.items():
        model = (typing.get_args(field.annotation) or (field.annotation,))[-1]
        above = f"{section}__default" if section in ("profiles", "tenants") else section
        yield from (PREFIX + name.upper() for name in _keys(model, above))


def _keys(model: type[BaseModel], above: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _keys(inner, f"{above}__{name}")
        else:
            yield f"{above}__{name}"
