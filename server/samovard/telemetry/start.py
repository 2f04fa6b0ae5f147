"""The start of one process, as far as it is told. Knows nothing of how a process starts."""

from dataclasses import dataclass

from samovard.telemetry.context import Context
from samovard.telemetry.stages import Stages


@dataclass(eq=False, slots=True)
class StartFacts:
    """A start: for whom, on whose clock, from when to when, and what became of it.

    `parent` is the call of the turn that needed it. `context` is set once it is told: later
    turns of the process link to it.
    """

    process_id: str
    profile: str
    resumed: bool
    stages: Stages
    parent: Context | None
    begin: int
    reason: str = "turn"
    end: int | None = None
    pid: int = 0
    cause: str = ""  # why it failed
    waited: bool = False  # long, for the agent's answer
    context: Context | None = None
