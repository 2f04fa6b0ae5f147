"""What a process needs of where it runs.

Knows nothing of how a process is spoken to.
"""

from subprocess import Popen
from typing import Protocol

from samovard.agent import capabilities
from samovard.agent.tracing import Tracing
from samovard.core.process import Launch


class Host(Protocol):
    """What a process needs of where it runs."""

    max_line_bytes: int
    tracing: Tracing

    async def spawn(self, launch: Launch) -> Popen[bytes]:
        """Spawns the child with its pipes; raises `NoProcess` or `Misconfigured`."""

    def marker(self, launch: Launch) -> str:
        """Return the marker by which what the child leaves behind is known."""

    def json_schema(self, launch: Launch) -> str:
        """Return the schema of the launch's results, empty if they are text."""

    async def check_cli(self) -> None:
        """Raise `NoProcess` if a new child might run another CLI than the one that was tested."""

    def expected(self, launch: Launch) -> capabilities.Expected:
        """Return what the answer to `initialize` must hold."""

    def waits(self, launch: Launch) -> None:
        """Called when a start has not been answered for a while."""

    def answered(self, *, waited: bool) -> None:
        """Called when a start is answered; `waited` if `waits` was called."""

    async def spawned(self, launch: Launch, pid: int) -> None:
        """Writes the child into the ledger of this machine."""

    async def has_transcript(self, launch: Launch) -> bool:
        """Return True if the launch's session has something to resume from."""

    async def gone(self, launch: Launch) -> None:
        """Takes the child off the ledger."""
