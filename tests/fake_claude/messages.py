"""One `user` line: its script, or the text to answer it with. Knows no other line."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .frames import Json
from .transcript import text
from .verbs import MARK

_HOLDS = ("cancelled_before_start", "still_queued")


@dataclass(slots=True)
class Message:
    """A message that waits or runs. `aborts`: it ends as soon as it has started."""

    uuid: str
    content: object
    aborts: bool = False
    steps: list[Json] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.steps = _script(text(self.content))

    @property
    def held(self) -> str:
        """The verb, if any, by which the message stays queued until an interrupt."""
        return next((step["do"] for step in self.steps if step["do"] in _HOLDS), "")

    def release(self) -> None:
        self.steps = [step for step in self.steps if step["do"] not in _HOLDS]


def _script(prompt: str) -> list[Json]:
    first = prompt.split("\n", 1)[0]
    if first.startswith(MARK):
        steps: list[Json] = json.loads(first[len(MARK) :])
        return steps
    return [{"do": "text", "value": prompt.removeprefix("Say ")}]
