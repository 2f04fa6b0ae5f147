"""One real start, to find out whether agents can be started.

Accepts a CLI that was replaced only once it has passed its self-test. Knows nothing of sessions, of
the pool's slots or of when a trial is due.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence

import structlog

from samovard.agent.agents import ClaudeAgents
from samovard.agent.binary import Cli
from samovard.agent.machine import Machine
from samovard.agent.process import AgentProcess
from samovard.core.errors import SamovarError
from samovard.core.events import Event, TurnFinished
from samovard.core.process import Broken, Doing, Exit, Launch

_log = structlog.get_logger("samovard.trial")


class _Deaf:
    """Listener that records only how the process ended: whether it answers is all that matters."""

    def __init__(self) -> None:
        self.exit: Exit | None = None

    def on_events(self, events: Sequence[Event], size: int, *, last: bool = False) -> None: ...

    def on_activity(self, doing: Doing, *, progress: bool, waits: float, steps: int) -> None: ...

    def on_cost(self, usd: float) -> None:
        """Do nothing: a trial has no cost limit."""

    def on_finished(self, finished: TurnFinished, said: str = "") -> None: ...

    def on_already_run(self) -> None: ...

    def on_quiet(self) -> None: ...

    def on_unsolicited(self, frames: int) -> None: ...

    def on_noise(self, lines: int) -> None: ...

    def on_broken(self, how: Broken) -> None: ...

    def on_exit(self, exit: Exit) -> None:
        self.exit = exit


def tell_of_exit(process_id: str, exit: Exit | None) -> None:
    """Log how an agent that belongs to no pool ended during its start, if it did."""
    if exit is not None:
        _log.warning("start.exited", process_id=process_id, exit=str(exit), stderr=exit.stderr)


class TrialStart:
    """One start of an agent outside the pool, with a profile and without a session.

    `tested` returns the CLI as it is now and its version once it has passed the self-test, and
    raises `Misconfigured` if it does not pass.
    """

    def __init__(
        self,
        agents: ClaudeAgents,
        machine: Machine,
        tested: Callable[[], Awaitable[tuple[Cli, str]]],
        profile: str,
    ) -> None:
        self._agents = agents
        self._machine = machine
        self._tested = tested
        self._profile = profile
        self._home = ""
        self.process: AgentProcess | None = None  # while it lives

    async def start(self) -> None:
        """Start an agent and wait for its answer. Raise what prevents that.

        `end` must be called afterwards, also after an error.
        """
        changed = await asyncio.to_thread(self._machine.changed)
        if changed:
            self._agents.take(*await self._tested())
            self._machine.take(changed)
            _log.warning("agent.replaced", version=self._agents.version)
        self._home = uuid.uuid4().hex
        launch = Launch(
            process_id=uuid.uuid4().hex,
            tenant="",
            profile=self._profile,
            home=self._home,
            agent_session=str(uuid.uuid4()),
            resume=False,
        )
        ear = _Deaf()
        self.process = self._agents.create(launch, ear)
        try:
            await self.process.start()
        except SamovarError:
            tell_of_exit(launch.process_id, ear.exit)
            raise

    def hurry(self) -> None:
        """Kill the agent; `end` must still be called."""
        if self.process is not None:
            self.process.kill()

    async def end(self, *, hurry: bool = False) -> None:
        """Stop the agent and remove its directory. Idempotent."""
        process = self.process
        if process is None:
            return
        if hurry:
            process.kill()
        try:
            await process.stop(suspect=hurry)
        finally:
            self.process = None
            await self._agents.remove_home(self._home)
