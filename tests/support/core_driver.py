"""A core with callers, on the clock that jumps: servers that come and go, and their streams.

Does what it is told to and informs the model; decides nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any

from support import turn_model as model
from support.answering_process import Company, Performer
from support.memory_store import Shelf
from support.pool_counts import Counts, count_stored, counts_of
from support.send_scenarios import prompts
from support.turn_model import Stream, Turn
from support.virtual_clock import Loop
from support.world import World, world

from samovard.core.errors import SamovarError
from samovard.core.pool.circuit_breaker import FAILURES
from samovard.core.records import SessionKey
from samovard.core.sessions.conversation import SessionRules

SLOTS, QUEUE, WAITING = 2, 4, 1  # one place of the queue is kept for newcomers
START = 0.02  # seconds that a process takes to start: a turn takes about twice that


class Driver:
    """Driver of a core. The caller of the first method sets its loop."""

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
        self.blocked: set[SessionKey] = set()  # by what their agents said
        self.counted: Counts = {}
        self.shelf_was_down = False
        self.w: World
        self.end: asyncio.Event
        self.keeper: asyncio.Task[None]

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def passes(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def begin(self) -> None:
        """Start a server on the content of the store."""
        self.spoiled.clear()
        ready: asyncio.Future[World] = self.loop.create_future()
        self.end = asyncio.Event()
        profile = SessionRules(ask=True, queue=WAITING)
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

    # Callers.

    def pick(self, which: int) -> Turn:
        return self.turns[-1 - which % len(self.turns)]

    def follow(self, stream: Stream, pause: float) -> None:
        turn = stream.turn
        if any(p.deaf for p in self.living(turn.key)):
            turn.suffer(model.KILLED)
        if turn.key in self.blocked:
            turn.suffer(model.BLOCKED)
        self.look_for_loops()
        work = self.sent(stream) if stream.sends else self.attached(stream)
        self.streams.append((stream, self.loop.create_task(self.told(stream, work))))
        self.look_for_crowds()
        self.passes(pause)

    def look_for_loops(self) -> None:
        for turn in self.turns:
            if self.spoiled[turn.key] >= FAILURES:
                turn.suffer(model.LOOPED)

    def look_for_crowds(self) -> None:
        busy = [turn for turn in self.turns if self.busy(turn)]
        sessions = Counter(turn.key for turn in busy)
        for turn in busy:
            if len(busy) >= QUEUE or sessions[turn.key] > 1 + WAITING:
                turn.suffer(model.CROWDED)
            if self.w.pool.queue.shares.turn * len(busy) > model.MAX_WAIT:
                turn.suffer(model.LATE)  # a process would come too late, as turns went until now

    def busy(self, turn: Turn) -> bool:
        """True if the turn may be waiting or running."""
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

    def of(self, key: SessionKey) -> Iterator[Turn]:
        return (turn for turn in self.turns if turn.key == key)

    def tried(self, work: Coroutine[Any, Any, object]) -> None:
        async def refused_or_done() -> None:
            try:
                await work
            except SamovarError:
                pass

        self.run(refused_or_done())

    # The world.

    def hurt(self, performer: Performer, *what: str) -> set[SessionKey]:
        """Tell the model what is done to a process. Return the sessions that it may belong to."""
        owners = {turn.key for turn in self.turns if performer in self.living(turn.key)}
        for turn in self.turns:
            if turn.key in owners:
                turn.suffer(*what)
        return owners

    def living(self, key: SessionKey) -> list[Performer]:
        """Return the processes of a session, by the homes that the pool gave them."""
        homes = {record.home for k, record in self.shelf.sessions.items() if k == key}
        process = self.w.pool.process_of(key)
        homes |= {process.launch.home} if process is not None else set()
        return [p for p in self.company.living if p.launch.home in homes]

    @property
    def company(self) -> Company:
        assert isinstance(self.w.stage, Company)
        return self.w.stage

    def crash(self) -> None:
        """End the server so that only the present content of the store is left."""
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
        """End the server, and everything that follows it."""
        self.w.sessions.refuse_new()
        self.w.pool.kill()
        if self.streams:
            await asyncio.wait([task for _, task in self.streams])
        self.end.set()
