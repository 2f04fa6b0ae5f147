"""Scenes of the core: callers of `Send`, what happens to them, and what must be true then.

A scene is played in a world of its own with performers for agents, which end every turn with its
canary. At the end of each scene nothing may be held, every caller must have been told the truth,
and every session must go on.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from support.answering_process import PIECES, Company
from support.await_points import Fate
from support.virtual_clock import Loop
from support.world import World, passes, run, world

from samovard.core.errors import Draining, SamovarError
from samovard.core.events import Event, Outcome, TextDelta, TurnFinished, TurnStarted
from samovard.core.records import SessionKey
from samovard.core.turn.turn import Disconnect

TENANT = "acme"
CALL = "call"  # the task of the caller that it happens to
SERVICE = (
    "turn ",
    "start ",
    "stop ",
    "reap ",
    "interrupt ",
    "close ",
)  # the tasks of the pool's scope
HELD = {"EventRetention._let_go", "Pool.pump"}  # timers that outlive a turn
AMBIENT = {"Timeout._on_timeout", "_release_waiter"}  # timers of the observer itself


@dataclass
class Caller:
    """One call of `Send`, and its events. Its text is its canary."""

    turn_id: str
    session: str
    policy: Disconnect = Disconnect.INTERRUPT
    tenant: str = TENANT
    events: list[Event] = field(default_factory=list)
    error: SamovarError | None = None
    ended: bool = False  # with OK

    @property
    def text(self) -> str:
        return f"{self.tenant}/{self.session}/{self.turn_id}"

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.tenant, self.session)

    async def send(self, w: World) -> None:
        """Do what the handler of the RPC does."""
        try:
            stream = await w.send(
                self.text, self.session, self.tenant, self.turn_id, on_disconnect=self.policy
            )
            async with stream:
                async for batches in stream:
                    for batch in batches:
                        assert batch.sequence == len(self.events) + 1
                        self.events += batch.events
                    await asyncio.sleep(0)  # the write to the wire
            self.ended = True
        except SamovarError as error:
            self.error = error

    def check(self, w: World) -> None:
        """Check that the stream had nothing foreign and one end, and agrees with what the agent
        saw.
        """
        ran = self.turn_id in prompts(w)
        kinds = [type(event) for event in self.events]
        said = "".join(event.text for event in self.events if isinstance(event, TextDelta))
        whole = "".join(f"{self.text}#{piece};" for piece in range(PIECES))
        assert whole.startswith(said), "a foreign word"
        assert kinds[:1] == [TurnStarted] * bool(kinds)
        assert TurnFinished not in kinds[:-1]
        assert not self.events or ran, "a turn began that the agent never saw"
        if self.ended:
            self._check_report(said, whole)
        if self.error is not None:
            assert TurnFinished not in kinds
            assert self.error.prompt_written == ran
            assert not (ran and self.error.retry_after)
        if not ran:
            assert (self.key, self.turn_id) not in w.shelf.turns, "a turn left a trace"

    def _check_report(self, said: str, whole: str) -> None:
        report = self.events[-1]
        assert isinstance(report, TurnFinished)
        if report.outcome is Outcome.COMPLETED:
            assert (said, report.result) == (whole, self.text)
        else:
            assert report.outcome is Outcome.INTERRUPTED


@dataclass(frozen=True)
class Scene:
    """The callers before and beside the caller that it happens to."""

    caller: Callable[[], Caller]
    before: tuple[str, ...] = ()  # sessions that had a turn
    beside: Callable[[], Caller] | None = None
    slots: int = 2
    forgotten: bool = False  # True if earlier sessions are in the store only


SCENES = {
    "in a new session": Scene(lambda: Caller("t", "a")),
    "in a warm session": Scene(lambda: Caller("t", "a"), before=("a",)),
    "in a session of old": Scene(lambda: Caller("t", "a"), before=("a",), forgotten=True),
    "behind a turn": Scene(lambda: Caller("t", "a"), beside=lambda: Caller("s", "a")),
    "without a slot": Scene(lambda: Caller("t", "a"), beside=lambda: Caller("s", "b"), slots=1),
    "in an idle one's place": Scene(lambda: Caller("t", "a"), before=("b",), slots=1),
    "beside the same turn": Scene(lambda: Caller("t", "a"), beside=lambda: Caller("t", "a")),
    "to run on": Scene(lambda: Caller("t", "a", Disconnect.CONTINUE)),
}


class Play:
    """A scene, played once. `call` is the task of the caller that it happens to."""

    def __init__(self, w: World, scene: Scene) -> None:
        assert isinstance(w.stage, Company)
        self.w = w
        self.company = w.stage
        self.call: asyncio.Task[None]
        self._scene = scene
        self._meanwhile: list[asyncio.Task[None]] = []

    def meanwhile(self, work: Coroutine[Any, Any, object]) -> None:
        """Do something at the same time, which may be refused."""

        async def tried() -> None:
            try:
                await work
            except SamovarError:
                pass

        self._meanwhile.append(asyncio.create_task(tried(), name="meanwhile"))

    async def run(self, fate: Fate) -> None:
        """Play the scene under a fate, and check what is left of it."""
        fate.watch(asyncio.get_running_loop())
        await self._before()
        callers = [self._scene.beside()] if self._scene.beside else []
        calls = [asyncio.create_task(other.send(self.w), name="other") for other in callers]
        if calls:
            await passes(0.505)  # the other one has a process and writes its prompt
        callers.append(self._scene.caller())
        fate.begun = True
        self.call = asyncio.create_task(callers[-1].send(self.w), name=CALL)
        await asyncio.wait([*calls, self.call])
        await asyncio.gather(*calls, *self._meanwhile)
        await check_at_rest(self.w)
        fate.begun = False
        for caller in callers:
            caller.check(self.w)
        for session in {caller.session for caller in callers}:
            await check_goes_on(self.w, session)
        await check_at_rest(self.w)

    async def _before(self) -> None:
        for session in self._scene.before:
            await Caller("before", session).send(self.w)
        if self._scene.forgotten:
            for performer in self.company.living:
                performer.die()
            await passes(600)
            assert repr(self.w.sessions) == "<Sessions held=0 running=0>"


def prompts(w: World) -> list[str]:
    """Return the turns whose prompts the agents were given."""
    return [prompt.turn_id for actor in w.stage.created for prompt in actor.prompts]


async def check_at_rest(w: World) -> None:
    """Check that there is no waiter, no lease, no process in transition, no timer without a
    purpose.
    """
    await w.settled()
    await passes(1)
    assert isinstance(w.stage, Company)
    assert w.pool.waiting == 0
    assert [repr(p) for p in w.pool if p.state.value != "idle" or p.lease is not None] == []
    assert [a.process_id for a in w.stage.living] == [p.process_id for p in w.pool]
    assert not w.stage.ghosts, "a session was closed and went on"
    asked = prompts(w)
    assert asked.count("t") <= 1, "a turn was run twice"
    handles = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # who else knows?
    timers = {handle._callback.__qualname__ for handle in handles if not handle.cancelled()}
    assert timers <= HELD | AMBIENT


async def check_goes_on(w: World, session: str) -> None:
    """Check that a session answers its next turn, once unblocked, unless the server leaves."""
    after = Caller("after", session)
    await after.send(w)
    if after.error is not None and after.error.cause == "session-blocked":
        await w.sessions.close(after.key)
        after = Caller("later", session)
        await after.send(w)
    if not isinstance(after.error, Draining):
        assert after.ended, after.error
        after.check(w)
        assert w.shelf.turns[after.key, after.turn_id].state == "finished"


def happens(
    scene: Scene,
    strike: Callable[[Play], object],
    tasks: tuple[str, ...],
    at: int,
    *,
    woken: bool = False,
    loop: Callable[[], Loop] = Loop,
) -> bool:
    """Play a scene in which something happens at an await.

    Return True if there was such an await.
    """
    played: list[Fate] = []

    async def told() -> None:
        async with world(stage=Company(), slots=scene.slots) as w:
            play = Play(w, scene)
            fate = Fate(at, tasks, lambda: strike(play), woken=woken)
            played.append(fate)
            await play.run(fate)

    run(told(), loop)
    return bool(played[0].struck)
