"""Sessions, turns and whatever happens to them, in any order, against a plain model.

The core runs on a clock that jumps, with performers for agents; every word carries its
tenant, session, turn and number. SAMOVAR_LONG=1 runs it long.
"""

import asyncio
import os
from collections.abc import Coroutine
from dataclasses import fields
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from performers import Company, Performer
from scenes import Caller, check_at_rest, prompts
from shelf import Shelf
from world import Loop, World, world

from samovard.core.census import pools_of, take
from samovard.core.errors import SamovarError
from samovard.core.events import Event
from samovard.core.lifecycle import State
from samovard.core.records import SessionKey
from samovard.core.tally import PoolKey, Tally
from samovard.core.turn import Disconnect

LONG = bool(os.environ.get("SAMOVAR_LONG"))
SLOTS, QUEUE = 2, 4
KEYS = st.sampled_from([SessionKey(t, s) for t in ("acme", "blue") for s in ("a", "b")])
WHICH = st.integers(0, 7)


GOING = (State.STOPPING, State.EXITED, State.QUARANTINED)


def census(w: World) -> dict[tuple[PoolKey, str], float]:
    """Gives everything that is counted and never decreases."""
    names = [f.name for f in fields(Tally) if f.name not in ("sessions", "stages")]
    return {
        (key, name): getattr(tally, name)
        for key, tally in w.pool.tallies.all.items()
        for name in names
    }


class Machine(RuleBasedStateMachine):
    """The model: who called and what he was told, and which turns an agent was given."""

    def __init__(self) -> None:
        super().__init__()
        self.loop: Loop
        self.shelf = Shelf()
        self.faults: list[object] = []
        self.calls: list[tuple[Caller, asyncio.Task[None]]] = []
        self.given: list[str] = []  # turns whose prompts were written in earlier servers
        self.numbers = 0
        self.counted: dict[tuple[PoolKey, str], float] = {}
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
        ready: asyncio.Future[World] = self.loop.create_future()
        self.end = asyncio.Event()

        async def keep() -> None:
            made = world(stage=Company(), shelf=self.shelf, slots=SLOTS, queue=QUEUE)
            async with made as w:
                ready.set_result(w)
                await self.end.wait()

        self.keeper = self.loop.create_task(keep())
        self.w = self.loop.run_until_complete(ready)
        for key, record in self.shelf.sessions.items():
            self.w.pool.tallies.of(key.tenant, record.spec.profile).sessions += 1
        self.counted = census(self.w)

    @rule(key=KEYS, policy=st.sampled_from(Disconnect))
    def send(self, key: SessionKey, policy: Disconnect) -> None:
        self.numbers += 1
        caller = Caller(f"turn-{self.numbers}", key.session, policy, key.tenant)
        self.calls.append((caller, self.loop.create_task(caller.send(self.w))))
        self.passes(0)

    @rule(which=WHICH)
    def leave(self, which: int) -> None:
        if self.calls:
            self.calls[which % len(self.calls)][1].cancel()
            self.passes(0)

    @rule(which=WHICH)
    def interrupt(self, which: int) -> None:
        if self.calls:
            caller, _ = self.calls[which % len(self.calls)]
            self.tried(self.w.sessions.interrupt(caller.key, caller.turn_id))

    @rule(which=WHICH)
    def attach(self, which: int) -> None:
        """All streams of a turn see the same: what another one has read begins alike."""
        if self.calls:
            caller, _ = self.calls[which % len(self.calls)]
            self.tried(self._attached(caller))

    async def _attached(self, caller: Caller) -> None:
        stream = await self.w.sessions.attach(caller.key, caller.turn_id, 0)
        seen: list[Event] = []
        async with stream:
            async for batches in stream:
                seen += [event for batch in batches for event in batch.events]
        both = min(len(seen), len(caller.events))
        assert seen[:both] == caller.events[:both]

    @rule(key=KEYS)
    def close(self, key: SessionKey) -> None:
        self.tried(self.w.sessions.close(key))

    @rule(key=KEYS)
    def replace(self, key: SessionKey) -> None:
        """Nothing that the tenant has can serve more than the turn that it serves."""
        mine = [process for process in self.w.pool if process.key.tenant == key.tenant]
        self.run(self._replaced(key.tenant))
        assert all(process.outdated or process.state in GOING for process in mine)

    async def _replaced(self, tenant: str) -> None:
        self.w.pool.replace(tenant, "")

    def tried(self, work: Coroutine[Any, Any, object]) -> None:
        async def refused_or_done() -> None:
            try:
                await work
            except SamovarError:
                pass

        self.run(refused_or_done())

    @rule(which=WHICH, deaf=st.booleans())
    def spoil(self, which: int, deaf: bool) -> None:
        """A process dies, or stops taking its input."""
        living = self.company.living
        if living:
            performer = living[which % len(living)]
            if deaf:
                performer.deaf = True
            else:
                performer.die()

    @rule()
    def lose_the_store_for_a_while(self) -> None:
        self.shelf.down = self.shelf_was_down = True
        self.passes(0.2)
        self.shelf.down = False

    @rule(seconds=st.sampled_from([0.002, 0.011, 0.1, 0.6, 70.0, 2000.0]))
    def wait(self, seconds: float) -> None:
        self.passes(seconds)

    @rule()
    def restart(self) -> None:
        """The server goes away, with all that runs, and another one starts on its store."""
        self.finish()
        self.begin()

    def finish(self) -> None:
        self.w.sessions.drain()
        self.w.pool.kill()
        if self.calls:
            self.run(asyncio.wait([call for _, call in self.calls]))
        self.end.set()
        self.loop.run_until_complete(self.keeper)
        self.judge()

    def judge(self) -> None:
        for caller, call in self.calls:
            assert call.cancelled() or call.exception() is None
            caller.check(self.w)
        self.calls = []
        self.given += prompts(self.w)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.passes(100)
            self.run(check_at_rest(self.w))
            if not self.shelf_was_down:  # what it was not told it cannot have kept
                self.check_sessions()
            self.finish()
        finally:
            for task in asyncio.all_tasks(self.loop):
                task.cancel()
            self.run(asyncio.sleep(60))
            self.loop.close()

    def check_sessions(self) -> None:
        """As many sessions are counted as the store has, and so many have no process."""
        tallies = self.w.pool.tallies.all.values()
        assert sum(tally.sessions for tally in tallies) == len(self.shelf.sessions)
        rows = pools_of(take(self.w.pool, self.w.sessions, {}, 0.0))
        served = {process.key for process in self.w.pool}
        assert sum(row.suspended for row in rows) == len(self.shelf.sessions.keys() - served)

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
        living = self.company.living
        homes = [performer.launch.home for performer in living]
        assert len(homes) == len(set(homes)), "a session has two processes"
        assert len(self.w.pool) <= SLOTS
        assert self.w.pool.waiting <= QUEUE
        for process in self.w.pool:
            assert not (process.outdated and process.state is State.IDLE)
            if process.lease is not None:
                assert process.lease.turn.key == process.key
                assert process.state.value != "idle"
        before, self.counted = self.counted, census(self.w)
        assert all(self.counted[name] >= count for name, count in before.items())
        for actor in self.company.created:
            assert isinstance(actor, Performer)
            owners = {prompt.content[0].text.rsplit("/", 1)[0] for prompt in actor.prompts}  # type: ignore[union-attr]  # all are texts
            assert len(owners) <= 1, "a process has words of two sessions"
        given = self.given + prompts(self.w)
        assert len(given) == len(set(given)), "a turn was run twice"


Machine.TestCase.settings = settings(
    max_examples=20_000 if LONG else 60, stateful_step_count=100 if LONG else 30, deadline=None
)
TestSessions = Machine.TestCase
