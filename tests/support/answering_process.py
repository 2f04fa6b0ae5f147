"""Agents that act by themselves, on the clock that jumps.

A performer answers each prompt with the canary that the prompt holds, in several pieces,
and obeys an interrupt with proof. A prompt that ends with `ASKS` makes it ask for permission
behind its first piece, and its later pieces tell what it was answered. It does what
`samovard.agent.process` does at the seam: what is stopped takes no more input, a start that is
stopped fails, and what is dead says nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from support.world import Actor, Stage

from samovard.core.errors import NoProcess
from samovard.core.events import Outcome, PermissionRequested, TextDelta
from samovard.core.process import (
    Allow,
    Broken,
    Launch,
    PermissionDecision,
    ProcessListener,
    Prompt,
    Text,
)

PIECES = 3
ASKS = "|asks"  # the end of a prompt
ALLOWED, DENIED = "allowed", "denied"
PAUSE = 0.01  # between the pieces of an answer, and before its end


@dataclass(eq=False)
class Performer(Actor):
    """One process; `turn` is the id of the turn that it answers, empty if none."""

    turn: str = ""
    stopping: bool = False
    deaf: bool = False  # takes no more input, and dies of it a moment later
    open: str = ""  # the request that waits for an answer
    told: str = ""  # what it was answered
    gone: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )

    async def start(self) -> None:
        self.stage.starts.append(self)
        await asyncio.wait({self.gone}, timeout=self.stage.start_time)
        if self.gone.done() or self.stopping:
            raise NoProcess("the agent ended at once", cause="start-failed", retry_after=1.0)
        if self.stage.start_errors:
            raise self.stage.start_errors.pop(0)
        self.pid = len(self.stage.starts)

    async def write(self, prompt: Prompt, written: Callable[[], None]) -> None:
        # As with a full pipe: the first byte is taken a little later, or never.
        await asyncio.wait({self.gone}, timeout=PAUSE)
        if self.deaf:
            asyncio.get_running_loop().call_later(PAUSE, self.die)
        if self.deaf or self.stopping or not self.alive:
            raise NoProcess("the process died", cause="process-died", retry_after=1.0)
        self.prompts.append(prompt)
        self.turn, self.open, self.told = prompt.turn_id, "", ""
        written()
        block = prompt.content[0]
        assert isinstance(block, Text)
        self._later(self._say, block.data.decode(), 0)

    def _later(self, step: Callable[..., None], *values: object) -> None:
        asyncio.get_running_loop().call_later(PAUSE, self._go_on, self.turn, step, values)

    def _go_on(self, turn: str, step: Callable[..., None], values: tuple[object, ...]) -> None:
        if self.alive and self.turn == turn:
            if self.paused:
                self._later(step, *values)
            else:
                step(*values)

    def _say(self, text: str, piece: int) -> None:
        canary, asks, _ = text.partition(ASKS)
        if piece == 1 and asks and not self.told:
            self._ask(text, canary)
        elif piece < PIECES:
            # The first piece alone, the others together, as one read of a pipe would return them.
            pieces = range(1) if piece == 0 else range(piece, PIECES)
            if not self.discarding:
                said = [TextDelta("m", 0, f"{canary}{self.told}#{n};") for n in pieces]
                self.listener.on_events(said, len(text))
            self._later(self._say, text, pieces.stop)
        else:
            self.finish(canary + self.told)
            self._later(self._end)

    def _ask(self, text: str, canary: str) -> None:
        self.open = text
        if self.discarding:  # no permission is asked while events are discarded
            self.told, self.open = DENIED, ""
            self._later(self._say, text, 1)
        else:
            asked = PermissionRequested(f"of-{self.turn}", f"use-{self.turn}", "Write", canary)
            self.listener.on_events([asked], len(canary))

    def decide(self, request_id: str, decision: PermissionDecision) -> None:
        super().decide(request_id, decision)
        if self.open and request_id == f"of-{self.turn}":
            text, self.open = self.open, ""
            self.told = ALLOWED if isinstance(decision, Allow) else DENIED
            self._later(self._say, text, 1)

    def _end(self) -> None:
        self.turn, self.discarding = "", False
        self.listener.on_quiet()

    def interrupt(self) -> Awaitable[bool]:
        proof: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.proofs.append(proof)
        asyncio.get_running_loop().call_later(PAUSE, self._obey, proof)
        return proof

    def _obey(self, proof: "asyncio.Future[bool]") -> None:
        if self.alive and self.turn:
            self.finish("", Outcome.INTERRUPTED)
            self.turn, self.discarding = "", False
        if not proof.done():
            proof.set_result(self.alive)
            if self.alive:
                self.listener.on_quiet()

    def discard(self) -> None:
        self.discarding, self.paused = True, False

    async def stop(self, *, suspect: bool) -> None:
        self.stopping = True
        await asyncio.wait({self.gone}, timeout=self.stage.stop_time)
        if self.alive:
            self.die()
        await asyncio.sleep(0)  # the ledger
        self.stopped = True

    async def spoil(self, *, deaf: bool) -> None:
        """Die, or take no more input."""
        self.deaf = self.deaf or deaf
        if not deaf:
            self.die()

    async def breaks(self, how: Broken) -> None:
        """Break the protocol, for which the process is killed."""
        self.listener.on_broken(how)

    def die(self, signal: int = 9, cut: int = 0) -> None:
        if self.alive:
            self.gone.set_result(None)
            for proof in self.proofs:
                if not proof.done():
                    proof.set_result(False)
            super().die(signal, cut)


class Company(Stage):
    """Maker of performers."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.ghosts: list[str] = []
        self._empty: set[str] = set()  # homes that were removed and not used since

    def create(self, launch: Launch, listener: ProcessListener) -> Performer:
        """Return a performer, and record a launch that resumes a removed home as a ghost."""
        if launch.resume and launch.home in self._empty:
            self.ghosts.append(launch.home)
        self._empty.discard(launch.home)
        performer = Performer(launch, listener, self)
        self.created.append(performer)
        return performer

    async def remove_home(self, home: str) -> None:
        """Remove a home."""
        self._empty.add(home)
        await super().remove_home(home)

    @property
    def living(self) -> list[Performer]:
        """The performers that are alive, oldest first."""
        return [actor for actor in self.created if isinstance(actor, Performer) and actor.alive]
