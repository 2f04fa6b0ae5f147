"""How a turn waits and how it is ended from outside. Knows neither turns nor lines."""

from __future__ import annotations

from collections.abc import Callable, Generator

Steps = Generator[float | None, None, None]


class Interrupted(Exception):
    """Raised to end a turn.

    `ack` answers the interrupt, if one asked; `exits`: it came by SIGINT.
    """

    def __init__(self, ack: Callable[[], None] | None, *, exits: bool = False) -> None:
        super().__init__()
        self.ack = ack or (lambda: None)
        self.exits = exits
