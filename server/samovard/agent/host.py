"""The interface through which a process uses the machine that it runs on.

Knows nothing of how a process is spoken to.
"""

from subprocess import Popen
from typing import Protocol

from samovard.agent import capabilities
from samovard.agent.tracing import Tracing
from samovard.core.process import Launch


class Host(Protocol):
    """The machine as a process needs it."""

    max_line_bytes: int
    tracing: Tracing

    async def spawn(self, launch: Launch) -> Popen[bytes]:
        """Spawn the child with its pipes. Raise `NoProcess` or `Misconfigured`."""

    def nested(self, launch: Launch) -> bool:
        """Return True if the agent runs in a PID namespace, below the child."""

    def marker(self, launch: Launch) -> str:
        """Return the marker by which the child's descendants are recognized."""

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
        """Record the child in the ledger of this machine."""

    def works(self, launch: Launch, *, working: bool) -> None:
        """Called when a turn is about to be written, and when the child is quiet again."""

    def exited(self, launch: Launch) -> None:
        """Called when the child has exited: it reaches the API no more."""

    async def has_transcript(self, launch: Launch) -> bool:
        """Return True if the launch's session has something to resume from."""

    async def gone(self, launch: Launch) -> None:
        """Remove the child from this machine's ledger."""
