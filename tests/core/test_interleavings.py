"""What happens between two steps of the core, on a clock that jumps."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from support.core_runner import collect, fails, finished, started, story
from support.memory_store import Shelf
from support.noted import EPOCH
from support.world import Stage, World, passes, text_of, turn_of

from samovard.core.errors import Misconfigured, NoProcess, SessionNotFound, TurnLost
from samovard.core.events import Outcome, StartMode, TextDelta
from samovard.core.pool.states import ProcessState
from samovard.core.process import Broken
from samovard.core.records import SessionKey, SessionRecord, TurnRecord
from samovard.core.sessions.conversation import SessionRules
from samovard.core.turn.turn import Disconnect, Phase, StreamBounds

KEY = SessionKey("acme", "default")
TTL = 3600.0


@dataclass
class LateShelf(Shelf):
    """Looks at once, and answers one call of the kind `looks` when the story says so."""

    looks: str = "load"
    late: asyncio.Event | None = None
    waits: bool = False

    async def load(self, key: SessionKey) -> SessionRecord | None:
        found = await super().load(key)
        await self._wait("load")
        return found

    async def load_turn(self, key: SessionKey, turn_id: str) -> TurnRecord | None:
        found = await super().load_turn(key, turn_id)
        await self._wait("load_turn")
        return found

    async def expired(
        self, now: float, limit: int, after: SessionKey | None = None
    ) -> Sequence[SessionKey]:
        found = await super().expired(now, limit, after)
        await self._wait("expired")
        return found

    async def _wait(self, looks: str) -> None:
        if looks == self.looks and (late := self.late) is not None:
            self.late, self.waits = None, True
            await late.wait()


def late_shelf(w: World) -> LateShelf:
    assert isinstance(w.shelf, LateShelf)
    return w.shelf


async def come_true(condition: Callable[[], object]) -> None:
    """Let the story's time pass until a condition holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def now() -> float:
    return EPOCH + asyncio.get_running_loop().time()


@story(slots=1)
async def test_a_tenant_with_many_sessions_lets_the_next_tenant_in(w: World) -> None:
    """A tenant that was granted a process goes to the end of the line."""
    streams = [await w.send(session=f"s{n}", tenant="crowd") for n in range(3)]
    streams.append(await w.send(session="s", tenant="single"))
    for count in range(1, 5):
        (await w.running(actors=count)).answer()
    for stream in streams:
        await collect(stream)
    tenants = [actor.launch.tenant for actor in w.stage.created]
    assert tenants == ["crowd", "single", "crowd", "crowd"]


async def _closed_during_a_look(w: World) -> None:
    await w.turn("old")
    old = w.stage.last
    await w.turn("other", session="other")  # takes the place of the first process
    await passes(310.0)  # until its last turn is held no longer
    assert old.stopped
    shelf = late_shelf(w)
    shelf.late = look = asyncio.Event()
    sending = asyncio.create_task(w.turn("new"))
    await come_true(lambda: shelf.waits)
    assert await w.sessions.close(KEY)
    look.set()
    assert started(await sending).start_mode is StartMode.COLD
    assert w.stage.last.launch.home != old.launch.home
    assert not w.stage.last.launch.resume
    assert w.shelf.sessions[KEY].turn_count == 1


@story(slots=1, shelf=LateShelf(looks="load"))
async def test_a_session_that_was_closed_during_a_look_for_it_is_not_used(w: World) -> None:
    """A Send that read the session's record before the close begins a new session."""
    await _closed_during_a_look(w)


@story(slots=1, shelf=LateShelf(looks="load_turn"))
async def test_a_session_that_was_closed_during_a_look_for_a_turn_is_not_used(w: World) -> None:
    """A Send that asks the store for its turn during the close begins a new session."""
    await _closed_during_a_look(w)


@story(stage=Stage(write_time=5.0))
async def test_a_turn_that_is_withdrawn_while_its_prompt_is_written_is_interrupted(
    w: World,
) -> None:
    """The agent has the prompt by then, so it must be told to stop."""
    async with await w.send("long") as stream:
        await come_true(lambda: turn_of(stream).phase is Phase.OPENING and not w.shelf.calls)
        await passes(1.0)
    assert w.stage.last.prompts == []
    actor = await w.running()
    await come_true(lambda: actor.proofs)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    await w.settled()
    assert w.stage.created == [actor]


@story(shelf=Shelf())
async def test_a_foreign_frame_while_a_turn_is_recorded_blocks_the_session(w: World) -> None:
    """The turn is refused without a prompt, and the block outlives its record."""
    await w.turn("first")
    actor = w.stage.last
    w.shelf.slow = 1.0
    stream = await w.send("second", turn_id="second")
    await come_true(lambda: turn_of(stream).phase is Phase.OPENING and w.shelf.calls)
    actor.listener.on_broken(Broken.FOREIGN)
    for refused in (await fails(stream), await _refusal(w)):
        assert isinstance(refused, Misconfigured)
        assert refused.cause == "session-blocked"
    await passes(5.0)
    assert len(actor.prompts) == 1
    assert len(w.stage.created) == 1
    assert w.shelf.sessions[KEY].blocked
    assert w.shelf.sessions[KEY].turn_count == 1


async def _refusal(w: World) -> Misconfigured:
    with pytest.raises(Misconfigured) as caught:
        await w.send("third")
    return caught.value


@story(profile=SessionRules(session_ttl=TTL))
async def test_a_session_expires_a_whole_time_after_its_last_turn_began_or_ended(
    w: World,
) -> None:
    """`expire_time` is set when a turn begins, when it ends and when its process dies."""
    stream = await w.send("one")
    begin = now()
    actor = await w.running()
    assert w.shelf.sessions[KEY].expire_time == pytest.approx(begin + TTL, abs=2.0)
    await passes(100.0)
    actor.answer()
    await collect(stream)
    assert w.shelf.sessions[KEY].expire_time == pytest.approx(now() + TTL, abs=2.0)
    await passes(100.0)
    stream = await w.send("two")
    actor = await w.running(prompts=2)
    assert w.shelf.sessions[KEY].expire_time == pytest.approx(now() + TTL, abs=2.0)
    await passes(100.0)
    actor.die()
    assert isinstance(await fails(stream), TurnLost)
    assert w.shelf.sessions[KEY].expire_time == pytest.approx(now() + TTL, abs=2.0)


@story(profile=SessionRules(session_ttl=TTL), shelf=LateShelf(looks="expired"))
async def test_a_session_that_was_used_during_the_look_for_expired_ones_is_kept(
    w: World,
) -> None:
    """A turn that began and ended since the store was asked gives the session more time."""
    await w.turn("first")
    await passes(TTL + 100)
    shelf = late_shelf(w)
    shelf.late = look = asyncio.Event()
    expiring = asyncio.create_task(w.sessions.close_expired())
    await come_true(lambda: shelf.waits)
    await w.turn("second")
    look.set()
    assert await expiring == 0
    assert w.shelf.sessions[KEY].turn_count == 2


@story()
async def test_what_is_owed_survives_a_close_that_fails_in_the_store(w: World) -> None:
    """The outcome of the last turn is stored once the store is back, if the session is."""
    stream = await w.send("one", turn_id="t")
    actor = await w.running()
    w.shelf.down = True
    actor.answer("one")
    assert (await fails(stream)).cause == "store-down"
    with pytest.raises(NoProcess):
        await w.sessions.close(KEY)
    w.shelf.down = False
    await passes(5.0)
    assert w.shelf.turns[KEY, "t"].state == "finished"


@story(stage=Stage(start_time=100.0))
async def test_a_first_turn_withdrawn_while_its_process_starts_stops_the_process(
    w: World,
) -> None:
    """A session that was never created leaves no process, directory or name."""
    async with await w.send("one"):
        await come_true(lambda: w.stage.starts)
    await passes(5.0)
    assert w.stage.last.stopped
    assert w.stage.removed == [w.stage.last.launch.home]
    await passes(100.0)
    assert len(w.pool) == 0
    assert len(w.sessions) == 0
    with pytest.raises(SessionNotFound):
        await w.sessions.get(KEY)


@story(slots=1)
async def test_a_drain_stops_a_process_that_starts(w: World) -> None:
    """It does not wait until a process is ready that serves no turn any more."""
    await w.turn("one")
    await w.turn("other", session="other")
    await w.settled()
    w.stage.start_time = 100.0
    stream = await w.send("two")
    await come_true(lambda: len(w.stage.starts) == 3)
    w.sessions.refuse_new()
    await fails(stream)
    await passes(5.0)
    assert w.stage.last.stopped
    assert not [p for p in w.pool if p.state is ProcessState.STARTING]


@story(bounds=StreamBounds(hold=100))
async def test_the_newest_events_are_held_whatever_their_size(w: World) -> None:
    """A bound below the size of one event does not drop that event."""
    async with await w.send("x", turn_id="t", on_disconnect=Disconnect.CONTINUE):
        actor = await w.running()
    actor.say("x" * 1000)
    attached = await w.sessions.attach(KEY, "t", 1)
    async with attached:
        [batch] = await anext(aiter(attached))
        assert batch.events == [TextDelta("m", 0, "x" * 1000)]
    actor.finish()
    actor.listener.on_quiet()
    await w.settled()


@story(stage=Stage(deaf_writes=1))
async def test_a_turn_is_ready_when_the_process_that_serves_it_is(w: World) -> None:
    """The first process died before it took the prompt, so its time does not count."""
    w.stage.start_time = 50.0
    begin = now()
    timings = finished(events := await w.turn("x")).timings
    assert text_of(events) == "x"
    assert timings is not None
    assert timings.process_ready is not None
    assert timings.process_ready / 1e9 == pytest.approx(begin + 100.0, abs=2.0)
