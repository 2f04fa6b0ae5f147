"""A core without processes: a clock that jumps, agents that follow a story, a store in memory.

`run(story)` runs an async story on an event loop whose clock jumps to the next timer whenever
nothing else is ready, so that hours pass in milliseconds and nothing sleeps.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from structlog.testing import capture_logs
from support.memory_store import Shelf
from support.noted import Noted, Starts, Wall
from support.virtual_clock import Loop

from samovard.core.errors import NoProcess
from samovard.core.events import (
    Event,
    Outcome,
    PermissionRequested,
    PermissionResolved,
    Resolution,
    TextDelta,
    TurnFinished,
    Usage,
)
from samovard.core.pool.background import BackgroundWork
from samovard.core.pool.pool import Pool
from samovard.core.pool.queue import PoolLimits
from samovard.core.process import (
    Condition,
    Doing,
    Exit,
    Launch,
    PermissionDecision,
    ProcessListener,
    Prompt,
    Text,
)
from samovard.core.records import SessionKey, Spec
from samovard.core.sessions.conversation import Clocks, SessionRules, TurnRequest
from samovard.core.sessions.directory import Directory
from samovard.core.sessions.quotas import Quota, Quotas
from samovard.core.sessions.sessions import Sessions
from samovard.core.sessions.write_behind import WriteBehindRecords
from samovard.core.turn.follower import Follower
from samovard.core.turn.limits import Limits
from samovard.core.turn.retention import EventRetention
from samovard.core.turn.turn import Disconnect, StreamBounds, Turn


def run(story: Coroutine[Any, Any, None], loop: Callable[[], Loop] = Loop) -> None:
    """Run a story to its end on a clock that jumps; at most a week of its time."""
    faults: list[object] = []
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: faults.append(context))
        runner.run(asyncio.wait_for(story, 7 * 24 * 3600.0))
    assert not faults, f"a callback raised: {faults}"


async def passes(seconds: float) -> None:
    """Let so many seconds of the story's time pass, in no real time at all."""
    await asyncio.sleep(seconds)


async def until(condition: Callable[[], object]) -> None:
    """Run everything that is ready until a condition holds."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("the condition never held")


@dataclass(eq=False)
class Actor:
    """A process that does what the story prescribes. By itself it starts, and obeys `stop`."""

    launch: Launch
    listener: ProcessListener
    stage: "Stage"
    pid: int = 0
    agent_version: str = "1"
    traced: bool = False
    waited: bool = False
    spent: Usage = field(default_factory=Usage)
    prompts: list[Prompt] = field(default_factory=list)
    alive: bool = True
    stopped: bool = False
    terminated: bool = False
    killed: bool = False
    paused: bool = False
    discarding: bool = False
    asked_condition: bool = False
    proofs: list[asyncio.Future[bool]] = field(default_factory=list)
    decisions: list[tuple[str, PermissionDecision]] = field(default_factory=list)

    @property
    def process_id(self) -> str:
        return self.launch.process_id

    async def start(self) -> None:
        self.stage.starts.append(self)
        await asyncio.sleep(self.stage.start_time)
        if self.stage.start_errors:
            raise self.stage.start_errors.pop(0)
        self.pid = len(self.stage.starts)

    async def write(self, prompt: Prompt, written: Callable[[], None]) -> None:
        if self.stage.deaf_writes > 0:
            self.stage.deaf_writes -= 1
            self.die()
            raise NoProcess("the process died", cause="process-died", retry_after=1.0)
        if self.stage.write_time:
            await asyncio.sleep(self.stage.write_time)
        self.prompts.append(prompt)
        written()
        if self.stage.quick:
            self.answer(self.stage.quick)

    def condition(self) -> Condition:
        self.asked_condition = True
        return Condition("S (sleeping)", "ep_poll")

    def interrupt(self) -> Awaitable[bool]:
        proof: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.proofs.append(proof)
        return proof

    def decide(self, request_id: str, decision: PermissionDecision) -> None:
        self.decisions.append((request_id, decision))

    def discard(self) -> None:
        self.discarding, self.paused = True, False

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    async def stop(self, *, suspect: bool) -> None:
        await asyncio.sleep(13.0 if self.stage.undead else self.stage.stop_time)
        if self.stage.undead:
            raise TimeoutError
        if self.alive:
            self.die()
        self.stopped = True

    async def kept(self) -> bool:
        self.stage.looks += 1
        return self.stage.keeps

    def terminate(self) -> None:
        self.terminated = True

    def kill(self) -> None:
        self.killed = True

    # Actions for the story.

    def say(self, *texts: str) -> None:
        events: Sequence[Event] = [TextDelta("m", 0, text) for text in texts]
        self.listener.on_events(events, sum(map(len, texts)))
        self.does(Doing.MODEL)

    def does(
        self, doing: Doing, *, progress: bool = True, waits: float = 0.0, steps: int = 1
    ) -> None:
        self.listener.on_activity(doing, progress=progress, waits=waits, steps=steps)

    def ask(self, *request_ids: str) -> None:
        events = [PermissionRequested(name, f"use-{name}", "Write", "{}") for name in request_ids]
        self.listener.on_events(events, 10 * len(events))

    def unask(self, *request_ids: str) -> None:
        events = [PermissionResolved(name, Resolution.WITHDRAWN) for name in request_ids]
        self.listener.on_events(events, 10 * len(events))

    def finish(self, result: str = "", outcome: Outcome = Outcome.COMPLETED) -> None:
        self.listener.on_finished(TurnFinished(outcome, result=result))

    def answer(self, text: str = "done") -> None:
        """Say a text and report it, as one read."""
        self.listener.on_events([TextDelta("m", 0, text)], len(text), last=True)
        self.does(Doing.MODEL)
        self.finish(text)
        self.listener.on_quiet()

    def die(self, signal: int = 9, cut: int = 0) -> None:
        self.alive = False
        self.listener.on_exit(Exit(None, signal, cut=cut))


@dataclass
class Stage:
    """Maker of actors, which it keeps. Times are in seconds."""

    start_time: float = 0.5
    stop_time: float = 0.05
    write_time: float = 0.0  # until the agent takes the first byte of a prompt
    undead: bool = False  # processes survive SIGKILL
    start_errors: list[Exception] = field(default_factory=list)
    deaf_writes: int = 0
    keeps: bool = True  # agents write transcripts
    looks: int = 0  # number of look-ups of a transcript
    quick: str = ""  # the answer that is given at once
    starts: list[Actor] = field(default_factory=list)
    created: list[Actor] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    removal_time: float = 0.0
    removal_errors: list[Exception] = field(default_factory=list)

    def create(self, launch: Launch, listener: ProcessListener) -> Actor:
        self.created.append(Actor(launch, listener, self))
        return self.created[-1]

    async def remove_home(self, home: str) -> None:
        await asyncio.sleep(self.removal_time)
        if self.removal_errors:
            raise self.removal_errors.pop(0)
        self.removed.append(home)

    @property
    def last(self) -> Actor:
        return self.created[-1]


@dataclass
class World:
    """Everything that a story needs."""

    pool: Pool
    sessions: Sessions
    stage: Stage
    shelf: Shelf
    retention: EventRetention
    noted: Noted
    wall: Wall
    background: BackgroundWork
    directory: Directory
    starts: Starts
    records: WriteBehindRecords
    logs: list[Any] = field(default_factory=list)

    async def send(
        self,
        text: str = "hello",
        session: str = "default",
        tenant: str = "acme",
        turn_id: str | None = None,
        on_disconnect: Disconnect = Disconnect.INTERRUPT,
        spec: Spec | None = None,
        timeout: float | None = None,
        steps: int | None = None,
        patience: float | None = None,
    ) -> Follower:
        """Begin a turn; a named session is made if it does not exist."""
        self._turns = getattr(self, "_turns", 0) + 1
        prompt = Prompt(turn_id or f"turn-{self._turns}", (Text(text.encode()),))
        turn_request = TurnRequest(
            SessionKey(tenant, session),
            prompt,
            text.encode(),
            spec or Spec(),
            on_disconnect,
            Limits(timeout, steps),
            patience=patience,
        )
        return await self.sessions.begin(turn_request)

    async def running(self, actors: int = 1, prompts: int = 1) -> Actor:
        """Wait until the newest process runs a turn, and return it."""
        async with asyncio.timeout(60):
            while len(self.stage.created) < actors or len(self.stage.last.prompts) < prompts:
                await asyncio.sleep(0.01)
        return self.stage.last

    async def turn(self, text: str = "hello", **where: Any) -> list[Event]:
        """Run a whole turn that the agent answers with its own text."""
        async with await self.send(text, **where) as stream:
            events: list[Event] = []
            async for batches in stream:
                events += [event for batch in batches for event in batch.events]
                if len(events) == 1:
                    process = self.pool.process_of(turn_of(stream).key)
                    assert process is not None
                    assert isinstance(process.handle, Actor)
                    process.handle.answer(text)
        return events

    async def settled(self) -> None:
        """Wait until no process is in transition and no turn runs."""
        resting = ("idle", "running")
        async with asyncio.timeout(60):
            while self.sessions.running or any(p.state.value not in resting for p in self.pool):
                await asyncio.sleep(0.01)


@asynccontextmanager
async def world(
    *,
    slots: int = 2,
    queue: int = 8,
    profile: SessionRules | None = None,
    bounds: StreamBounds | None = None,
    stage: Stage | None = None,
    shelf: Shelf | None = None,
    defects: int = 0,
    retention: EventRetention | None = None,
    quota: Callable[[str], Quota] = lambda tenant: Quota(),
    spent: Mapping[str, float] | None = None,
    **limits: Any,
) -> AsyncIterator[World]:
    """Make a world, and check at its end that nothing is left in it.

    `defects` is how often the core may meet a broken rule of its own.
    """
    bounded = PoolLimits(slots, queue, **limits)
    told = stage or Stage(), shelf or Shelf(), retention or EventRetention()
    with capture_logs() as logs:
        async with _world(*told, profile, bounds, bounded, (quota, spent or {})) as made:
            made.logs = logs
            yield made
    met = [log for log in logs if log["event"] in ("defect", "loop.failed")]
    assert len(met) == defects, f"a rule of ours was broken: {met}"


@asynccontextmanager
async def _world(
    stage: Stage,
    shelf: Shelf,
    retention: EventRetention,
    profile: SessionRules | None,
    bounds: StreamBounds | None,
    limits: PoolLimits,
    quotas: tuple[Callable[[str], Quota], Mapping[str, float]],
) -> AsyncIterator[World]:
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    noted, wall = Noted(), Wall()
    async with BackgroundWork() as background:
        records = WriteBehindRecords(shelf, background, noted)
        directory, starts = Directory(records, background), Starts()
        pool = Pool(
            stage,
            limits,
            clock=loop.time,
            background=background,
            listener=directory,
            starts=starts,
            recorder=noted,
        )
        async with pool:
            sessions = Sessions(
                pool,
                directory=directory,
                records=records,
                background=background,
                agents=stage,
                profiles={"default": profile or SessionRules()},
                clocks=Clocks(wall, loop.time),
                retention=retention,
                quotas=Quotas(wall, loop.time, *quotas),
                bounds=bounds,
                recorder=noted,
            )
            others = wall, background, directory, starts, records
            yield World(pool, sessions, stage, shelf, retention, noted, *others)
            sessions.refuse_new()
    sessions.release()
    assert retention.bytes == 0, f"events are left: {retention!r}"
    assert len(pool) == 0 or stage.undead, f"processes are left: {pool!r}"
    assert pool.waiting == 0, f"turns are left waiting: {pool!r}"
    stopped = all(actor.stopped for actor in stage.starts)
    assert stopped or stage.undead, "a process was not stopped"
    assert asyncio.all_tasks() == before, "tasks are left"


def turn_of(stream: object) -> Turn:
    """Return the turn that a stream follows."""
    assert isinstance(stream, Follower)
    assert isinstance(stream.turn, Turn)
    return stream.turn


def text_of(events: Sequence[Event]) -> str:
    """Return the texts of all deltas, joined."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


__all__ = ["Actor", "Shelf", "Stage", "World", "replace", "run", "text_of", "until", "world"]
