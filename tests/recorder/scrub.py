"""Remove from a recording what depends on the run or the machine.

Ids are numbered as they come, paths are those of an imaginary machine, all times are the same, and
long texts are cut. There is no I/O.
"""

import functools
import json
import re
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]

#: Ids, and their replacements: a number in the order of appearance.
_IDS = {
    r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}": "{:08}-0000-4000-8000-000000000000",
    r"msg_[0-9a-f]{24}": "msg_{:02}",
    r"toolu_[0-9a-f]{24}": "toolu_{:02}",
    r"req_[0-9a-f]{24}": "req_{:02}",
    r"\ba[0-9a-f]{16}\b": "agent_{:02}",
    r"\b0[a-z0-9]{8}-[0-9a-f]{8}\b": "run_{:02}",
    r"(?<=\")[0-9a-f]{16}(?=\")": "{:016x}",
}
#: Other values that depend on the run, and their replacements.
_RUN = {
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z": "2026-01-01T00:00:00.000Z",
    r"(?<=_ms: )\d+": "10",
    r"/claude-\d+/": "/claude-1000/",
    r"cc-socks/\d+\.sock": "cc-socks/4242.sock",
    r"127\.0\.0\.1:\d+": "127.0.0.1:80",
}
MAX_TEXT = 120
_WHOLE = ("text", "thinking", "data", "partial_json", "result")  # output of the model stays whole
#: The lists that the CLI offers: the first of many items shows the shape.
_OFFERS = ("agents", "models", "available_output_styles", "supportedEffortLevels", "skills")


class Scrubber:
    """Scrubber of the lines of one recording, in order; `paths` maps directories to their names."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths
        self._known: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def line(self, line: Json) -> Json:
        """Return a line as it is kept."""
        text = json.dumps(line)
        for path, name in self._paths.items():
            text = text.replace(path, name).replace(
                re.sub(r"\W", "-", path), name.replace("/", "-")
            )
        for pattern, name in _RUN.items():
            text = re.sub(pattern, name, text)
        for pattern, form in _IDS.items():
            text = re.sub(pattern, functools.partial(self._named, form), text)
        kept: Json = _trimmed(json.loads(text))
        return kept

    def _named(self, form: str, found: re.Match[str]) -> str:
        if (id := found[0]) not in self._known:
            self._counts[form] = self._counts.get(form, 0) + 1
            self._known[id] = form.format(self._counts[form])
        return self._known[id]


def _trimmed(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _trimmed(held, name) for name, held in value.items()}
    if isinstance(value, list):
        return [_trimmed(held, key) for held in (value[:1] if key in _OFFERS else value)]
    if isinstance(value, str) and len(value) > MAX_TEXT and key not in _WHOLE:
        return f"{value[:MAX_TEXT]}... (trimmed)"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return _number(key, value)
    return value


def _number(key: str, value: float) -> float:
    if key == "pid":
        return 4242
    if key == "retry_delay_ms":
        return max(500 * round(value / 500), 500)
    return 10 if key.endswith(("_ms", "Ms", "_seconds", "_time")) else value
