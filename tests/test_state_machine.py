"""Sessions, turns and whatever happens to them, in any order, against a plain model.

The core runs on a clock that jumps, with performers for agents; every word carries its
tenant, session, turn and number. SAMOVAR_LONG=1 runs it long.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

import model
import pytest
from counts import Counts, check_sessions, count_stored, counts_of
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from model import Stream, Turn
from performers import Company, Performer
from scenes import check_at_rest, prompts
from shelf import Shelf
from world import Loop, World, world

from samovard.core.breakers import FAILURES
from samovard.core.errors import PermissionNotFound, SamovarError
from samovard.core.events import Resolution
from samovard.core.lifecycle import State
from samovard.core.process import Allow, Decision, Deny
from samovard.core.records import SessionKey
from samovard.core.session import Profile
from samovard.core.turn import Disconnect

LONG = bool(os.environ.get("SAMOVAR_LONG"))
SLOTS, QUEUE, WAITING = 2, 4, 1
KEYS = st.sampled_from([SessionKey(t, s) for t in ("acme", "blue") for s in ("a", "b")])
WHICH = st.integers(0, 11)
#: What passes behind a rule: nothing, a moment of a turn, or a whole one.
PAUSE = st.sampled_from([0.0, 0.0, 0.002, 0.011, 0.025, 0.1])
START = 0.02  # seconds that a process takes to start: a turn takes about twice that
GOING = (State.STOPPING, State.EXITED, State.QUARANTINED)
DECISIONS: list[Decision] = [Allow(), Deny("no"), Deny("stop", interrupt=True)]


class Machine(RuleBasedStateMachine):
    """Plays with the core, and tells the model what it does and what its streams see."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: Loop
        self.shelf = Shelf()
        self.faults: list[object] = []
        self.turns: list[Turn] = []
        self.streams: list[tuple[Stream, asyncio.Task[None]]] = []
        self.given: list[str] = []  # turns whose prompts were written in earlier servers
        self.lives: Counter[SessionKey] = Counter()
        self.spoiled: Counter[SessionKey] = Counter()  # how often, in a life with one server
        self.counted: Counts = {}
        self.shelf_was_down = False
        self.w: World
        self.end: asyncio.Event
        self.keeper: asyncio.Task[None]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @initialize()
    def open(self) -> None:
        self.loop = Loop()
        self.loop.set_exception_handler(lambda _, context: self.faults.append(context))
        self.begin()

    def begin(self) -> None:
        """A server starts on what the store has."""
        self.spoiled.clear()
        ready: asyncio.Future[World] = self.loop.create_future()
        self.end = asyncio.Event()
        profile = Profile(ask=True, queue=WAITING)
        made = world(
            stage=Company(start_time=START),
            shelf=self.shelf,
            slots=SLOTS,
            queue=QUEUE,
            profile=profile,
        )

        async def keep() -> None:
            async with made as w:
                ready.set_result(w)
                await self.end.wait()

        self.keeper = self.loop.create_task(keep())
        self.w = self.loop.run_until_complete(ready)
        count_stored(self.w, self.shelf)
        self.counted = counts_of(self.w)

    # What callers do.

    @rule(key=KEYS, policy=st.sampled_from(Disconnect), asks=st.booleans(), pause=PAUSE)
    def send(self, key: SessionKey, policy: Disconnect, asks: bool, pause: float) -> None:
        name = f"turn-{len(self.turns)}"
        turn = Turn(key, name, asks, policy, self.lives[key], self.loop.time)
        self.turns.append(turn)
        self.follow(Stream(turn, sends=True), pause)

    @precondition(lambda self: self.turns)
    @rule(which=WHICH, other=st.booleans(), pause=PAUSE)
    def send_again(self, which: int, other: bool, pause: float) -> None:
        """The same turn once more, or other content under its name."""
        turn = self.pick(which)
        if turn.life == self.lives[turn.key]:
            self.follow(Stream(turn, sends=True, other=other and turn.began), pause)

    @precondition(lambda self: self.turns)
    @rule(which=WHICH, after=st.integers(0, 8), pause=PAUSE)
    def attach(self, which: int, after: int, pause: float) -> None:
        self.follow(Stream(self.pick(which), sends=False, after=after), pause)

    def pick(self, which: int) -> Turn:
        return self.turns[-1 - which % len(self.turns)]

    def follow(self, stream: Stream, pause: float) -> None:
        turn = stream.turn
        if any(p.deaf for p in self.living(turn.key)):
            turn.suffer(model.KILLED)
        if self.spoiled[turn.key] >= FAILURES:
            turn.suffer(model.LOOPED)
        work = self.sent(stream) if stream.sends else self.attached(stream)
        self.streams.append((stream, self.loop.create_task(self.told(stream, work))))
        self.look_for_crowds()
        self.passes(pause)

    def look_for_crowds(self) -> None:
        busy = [turn for turn in self.turns if self.busy(turn)]
        sessions = Counter(turn.key for turn in busy)
        for turn in busy:
            if len(busy) > QUEUE or sessions[turn.key] > 1 + WAITING:
                turn.suffer(model.CROWDED)

    def busy(self, turn: Turn) -> bool:
        """Tells whether it may be waiting or running."""
        followed = any(s.turn is turn and not task.done() for s, task in self.streams)
        return not turn.ending and (
            followed or turn.began or bool(turn.done & {model.LEFT, model.STOP})
        )

    async def told(self, stream: Stream, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except SamovarError as error:
            stream.end(error)
        else:
            stream.end(None)

    async def sent(self, stream: Stream) -> None:
        turn = stream.turn
        prompt = turn.prompt + ("|other" if stream.other else "")
        where = (prompt, turn.key.session, turn.key.tenant, turn.turn_id)
        await self.read(stream, await self.w.send(*where, on_disconnect=turn.policy))

    async def attached(self, stream: Stream) -> None:
        turn = stream.turn
        attach = self.w.sessions.attach(turn.key, turn.turn_id, stream.after)
        await self.read(stream, await attach)

    async def read(self, stream: Stream, source: Any) -> None:
        async with source:
            async for batches in source:
                for batch in batches:
                    stream.take(batch.sequence, batch.events)
                await asyncio.sleep(0)  # the write to the wire

    @rule(which=WHICH, pause=PAUSE)
    def leave(self, which: int, pause: float) -> None:
        running = [(s, task) for s, task in self.streams if not task.done()]
        if running:
            stream, task = running[which % len(running)]
            turn = stream.turn
            # A turn that is to run on is no worse for it once it has begun.
            if stream.sends and (turn.policy is Disconnect.INTERRUPT or not turn.began):
                turn.suffer(model.LEFT)
            task.cancel()
            self.passes(pause)

    @precondition(lambda self: self.turns)
    @rule(which=WHICH, pause=PAUSE)
    def interrupt(self, which: int, pause: float) -> None:
        turn = self.pick(which)
        turn.suffer(model.STOP)
        self.tried(self.w.sessions.interrupt(turn.key, turn.turn_id))
        self.passes(pause)

    @rule(which=WHICH, decision=st.sampled_from(DECISIONS), twice=st.booleans())
    def respond(self, which: int, decision: Decision, twice: bool) -> None:
        """Whoever answers first is obeyed; the same answer once more changes nothing."""
        asked = [(turn, name) for turn in self.turns for name in turn.open]
        if not asked:
            return
        turn, name = asked[which % len(asked)]
        if isinstance(decision, Deny) and decision.interrupt:
            turn.suffer(model.STOP)
        turn.answering.add(name)
        taken = self.answered(turn, name, decision)
        if taken:
            allowed = isinstance(decision, Allow)
            turn.answers[name] = Resolution.ALLOWED if allowed else Resolution.DENIED
        turn.answering.discard(name)
        if taken and twice:
            assert self.answered(turn, name, decision) or turn.ending or not self.busy(turn)
            self.answered(turn, name, Deny("too late"))
        self.passes(0)

    def answered(self, turn: Turn, name: str, decision: Decision) -> bool:
        async def respond() -> bool:
            try:
                await self.w.sessions.respond(turn.key, name, decision)
            except SamovarError as error:
                gone = isinstance(error, PermissionNotFound) or model.CLOSED in turn.done
                assert gone or model.DOWN in turn.done
                return False
            return True

        return bool(self.run(respond()))

    @rule(key=KEYS)
    def close(self, key: SessionKey) -> None:
        if any(s.repeats and s.turn.key == key for s, task in self.streams if not task.done()):
            return  # it may come after the close, and rightly run in the session made anew
        for turn in self.of(key):
            turn.done.add(model.CLOSED)
        self.tried(self.w.sessions.close(key))
        self.lives[key] += 1
        self.spoiled[key] = 0

    @rule(key=KEYS)
    def replace(self, key: SessionKey) -> None:
        """Nothing that the tenant has can serve more than the turn that it serves."""
        mine = [process for process in self.w.pool if process.key.tenant == key.tenant]
        self.run(self.replaced(key.tenant))
        assert all(process.outdated or process.state in GOING for process in mine)

    async def replaced(self, tenant: str) -> None:
        self.w.pool.replace(tenant, "")

    def of(self, key: SessionKey) -> Iterator[Turn]:
        return (turn for turn in self.turns if turn.key == key)

    def tried(self, work: Coroutine[Any, Any, object]) -> None:
        async def refused_or_done() -> None:
            try:
                await work
            except SamovarError:
                pass

        self.run(refused_or_done())

    # What the world does.

    @rule(which=WHICH, deaf=st.booleans())
    def spoil(self, which: int, deaf: bool) -> None:
        """A process dies, or stops taking its input."""
        living = self.company.living
        if not living:
            return
        performer = living[which % len(living)]
        owners = {turn.key for turn in self.turns if performer in self.living(turn.key)}
        self.spoiled.update(owners)
        for turn in self.turns:
            if turn.key in owners:
                turn.suffer(model.KILLED, *[model.LOOPED] * (self.spoiled[turn.key] >= FAILURES))
        self.run(self.spoilt(performer, deaf))

    async def spoilt(self, performer: Performer, deaf: bool) -> None:
        if deaf:
            performer.deaf = True
        else:
            performer.die()

    def living(self, key: SessionKey) -> list[Performer]:
        """Gives the processes of a session, by what the pool said when it made them."""
        homes = {record.home for k, record in self.shelf.sessions.items() if k == key}
        process = self.w.pool.process_of(key)
        homes |= {process.launch.home} if process is not None else set()
        return [p for p in self.company.living if p.launch.home in homes]

    @rule(slow=st.sampled_from([0.001, 0.02, 0.3]))
    def lose_the_store_for_a_while(self, slow: float) -> None:
        """And each of its calls takes so long from then on."""
        for turn in self.turns:
            turn.done.add(model.DOWN)  # one that has ended cannot be looked up
        self.shelf.down = self.shelf_was_down = True
        self.passes(0.2)
        self.shelf.down, self.shelf.slow = False, slow

    @rule(seconds=st.sampled_from([0.6, 70.0, 400.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.passes(seconds)

    @rule(dies=st.booleans())
    def another_server(self, dies: bool) -> None:
        """The server goes away, or dies, and another one starts on what is in its store."""
        if dies:
            self.crash()
        else:
            self.finish(model.DRAINED)
        self.begin()

    def crash(self) -> None:
        """What the store has in this moment is all that is left."""
        left = Shelf(dict(self.shelf.sessions), dict(self.shelf.turns))
        for stream, _ in self.streams:
            stream.muted = True
        self.given += prompts(self.w)
        self.finish(model.CRASHED, forget=True)
        self.shelf = left

    def finish(self, how: str, *, forget: bool = False) -> None:
        for turn in self.turns:
            turn.done.add(how)
        self.run(self.leaving())
        self.loop.run_until_complete(self.keeper)
        for _, task in self.streams:
            assert task.cancelled() or task.exception() is None, task.exception()
        self.streams = []
        if not forget:
            self.given += prompts(self.w)
            mine = (turn for turn in self.turns if turn.life == self.lives[turn.key])
            model.check_store(mine, self.shelf.turns, self.given)

    async def leaving(self) -> None:
        """Ends the server, and everything that follows it."""
        self.w.sessions.drain()
        self.w.pool.kill()
        if self.streams:
            await asyncio.wait([task for _, task in self.streams])
        self.end.set()

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.passes(400)  # whatever is asked is denied by then
            self.run(check_at_rest(self.w))
            if not self.shelf_was_down:  # what it was not told it cannot have kept
                check_sessions(self.w, self.shelf)
            self.finish(model.DRAINED)
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.run(asyncio.sleep(60))
            self.loop.close()

    @property
    def company(self) -> Company:
        assert isinstance(self.w.stage, Company)
        return self.w.stage

    # What must be true at any time.

    @invariant()
    def nothing_is_where_it_must_not_be(self) -> None:
        if not hasattr(self, "w"):
            return
        assert not self.faults
        for _, task in self.streams:
            if task.done() and not task.cancelled():
                assert task.exception() is None, task.exception()
        living = self.company.living
        homes = [performer.launch.home for performer in living]
        assert len(homes) == len(set(homes)), "a session has two processes"
        assert len(self.w.pool) <= SLOTS
        # Whose process died before the prompt waits again, whoever else waits.
        assert self.w.pool.waiting <= QUEUE + SLOTS
        for process in self.w.pool:
            assert not (process.outdated and process.state is State.IDLE)
            if process.lease is not None:
                assert process.lease.turn.key == process.key
                assert process.state.value != "idle"
        model.check_reports(self.turns, self.shelf.turns)
        before, self.counted = self.counted, counts_of(self.w)
        assert all(self.counted[name] >= count for name, count in before.items())
        for actor in self.company.created:
            assert isinstance(actor, Performer)
            owners = {prompt.content[0].text.rsplit("/", 1)[0] for prompt in actor.prompts}  # type: ignore[union-attr]  # all are texts
            assert len(owners) <= 1, "a process has words of two sessions"
        given = self.given + prompts(self.w)
        assert len(given) == len(set(given)), "a turn was run twice"


Machine.TestCase.settings = settings(
    max_examples=20_000 if LONG else 800,
    stateful_step_count=100 if LONG else 40,
    derandomize=not LONG,  # a change is held against the same stories as the one before it
    report_multiple_bugs=False,
)
TestSessions = Machine.TestCase
pytestmark = pytest.mark.timeout(24 * 3600 if LONG else 600)  # what it finds it makes small
