"""The matrix: what a probe tries, which level forbids it, and what became of it.

Pure: runs nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from samovard.agent.isolation.walls import Level, Mechanism, Walls

#: The rows of the matrix, each with the lowest level that forbids it; None: only reported.
ROWS: dict[str, Level | None] = {
    "files": Level.BASIC,
    "environ": Level.BASIC,
    "memory": Level.BASIC,
    "signals": Level.STRONG,
    "unix sockets": Level.STRONG,
    "daemons": Level.STRONG,
    "abstract sockets": None,
    "TCP": None,
    "UDP": None,
    "metadata address": None,
}
#: What an agent cannot reach that is alone in its network.
NETWORK = ("abstract sockets", "TCP", "UDP")
OWN = "own"  # the row of what an agent must be able to do
_ORDER = [Level.NONE, Level.BASIC, Level.STRONG]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of the attacker: its row, what it did, and whether it got through."""

    row: str
    what: str
    reached: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """What the probe of one rung found; `fault` says why it could not be tried, if so."""

    walls: Walls
    attempts: tuple[Attempt, ...] = ()
    fault: str = ""

    @property
    def mechanism(self) -> Mechanism:
        """The rung."""
        return self.walls.mechanism

    @property
    def why(self) -> str:
        """Why the rung cannot be used; empty if it holds what its level promises."""
        if self.fault:
            return self.fault
        if any(not attempt.reached for attempt in self.attempts if attempt.row == OWN):
            return "an agent could not use its own directories"
        # What was not tried is not known to be held.
        promised = [row for row in ROWS if forbids(self.walls.level, row)]
        promised += NETWORK if self.walls.alone else ()
        failed = [row for row in promised if self.word(row) != "denied"]
        return ", ".join(f"{row}: {self.word(row)}" for row in failed)

    def word(self, row: str) -> str:
        """Return the result of a row, in words."""
        of_row = [attempt for attempt in self.attempts if attempt.row == row]
        if not of_row:
            return "not tried"
        reached = next((attempt for attempt in of_row if attempt.reached), None)
        return "denied" if reached is None else f"reached ({reached.what})"


def forbids(level: Level, row: str) -> bool:
    """True if a level promises that nothing of a row is reached."""
    least = ROWS[row]
    return least is not None and at_least(level, least)


def at_least(level: Level, least: Level) -> bool:
    """True if a level is as high as another one."""
    return _ORDER.index(level) >= _ORDER.index(least)


def attempts(lines: Collection[Sequence[str]]) -> tuple[Attempt, ...]:
    """Return what the attacker printed: for each attempt its row, its name and its result."""
    return tuple(Attempt(row, what, word == "reached") for row, what, word in lines)
