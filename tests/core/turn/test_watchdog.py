"""A turn that does not get on is given up, and one that does is not."""

import asyncio
from collections.abc import Callable

import pytest
from support.core_runner import collect, fails, finished, started, story
from support.world import Actor, World, passes, run, turn_of, until

from samovard.core.errors import TurnLost
from samovard.core.events import Outcome, StartMode
from samovard.core.process import Doing
from samovard.core.sessions.conversation import SessionRules
from samovard.core.turn.follower import Follower
from samovard.core.turn.turn import Disconnect, StreamBounds
from samovard.core.turn.watchdog import Patience, Watchdog

PATIENCE = Patience(first=20.0, stream=10.0, tool=100.0, compact=50.0)
WATCHED = SessionRules(patience=PATIENCE)


async def given_up(stream: Follower, actor: Actor) -> float:
    """Waits until a turn is lost as stalled, and gives how long that took."""
    loop = asyncio.get_running_loop()
    begin = loop.time()
    error = await fails(stream)
    assert isinstance(error, TurnLost)
    assert error.cause == "stalled"
    assert error.prompt_written
    assert error.retry_after is None
    assert not actor.proofs, "a stalled agent is not asked to stop"
    return loop.time() - begin


@story(profile=WATCHED)
async def test_a_silent_agent_is_given_up_and_replaced(w: World) -> None:
    """Without any progress the turn is lost after its first limit; the next one resumes."""
    stream = await w.send("x")
    actor = await w.running()
    assert await given_up(stream, actor) == pytest.approx(20.0, abs=0.1)
    assert started(await w.turn()).start_mode is StartMode.RESUMED
    assert w.stage.last is not actor


@story(profile=WATCHED)
async def test_noise_is_no_progress(w: World) -> None:
    """An agent that talks and does not get on is as stuck as one that is silent."""

    async def chat() -> None:
        while True:
            actor.does(Doing.MODEL, progress=False)
            await passes(0.5)

    stream = await w.send("x")
    actor = await w.running()
    chatting = asyncio.create_task(chat())
    assert await given_up(stream, actor) == pytest.approx(20.0, abs=0.1)
    chatting.cancel()


@story(profile=WATCHED)
async def test_progress_counts_from_anew(w: World) -> None:
    """A turn may take as long as it likes while it gets on."""
    stream = await w.send("x")
    actor = await w.running()
    for _ in range(20):
        actor.say("word ")
        await passes(9.0)
    actor.answer()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED


PHASES: dict[str, tuple[Callable[[Actor], None], float]] = {
    "stream": (lambda actor: actor.say("x"), 10.0),
    "tool": (lambda actor: actor.does(Doing.TOOL), 100.0),
    "compact": (lambda actor: actor.does(Doing.COMPACTING, progress=False), 50.0),
    "first, with a retry": (lambda actor: actor.does(Doing.MODEL, progress=False, waits=7.0), 27.0),
}


@pytest.mark.parametrize("phase", PHASES)
def test_each_phase_has_its_limit(phase: str) -> None:
    """What the agent waits for says how long it may; a retry's own delay comes on top."""
    does, limit = PHASES[phase]

    @story(profile=WATCHED)
    async def told(w: World) -> None:
        """Does it and then nothing more."""
        stream = await w.send("x")
        actor = await w.running()
        does(actor)
        assert await given_up(stream, actor) == pytest.approx(limit, abs=0.1)

    told()


@story(profile=WATCHED)
async def test_a_phase_that_ends_is_no_longer_waited_for(w: World) -> None:
    """After a tool's result the model has its own, shorter limit."""
    stream = await w.send("x")
    actor = await w.running()
    actor.does(Doing.TOOL)
    await passes(90.0)
    actor.does(Doing.MODEL)
    assert await given_up(stream, actor) == pytest.approx(10.0, abs=0.1)


@story(profile=WATCHED)
async def test_a_failed_compaction_leaves_the_model_its_time(w: World) -> None:
    """The time of a compaction without success is not the model's."""
    stream = await w.send("x")
    actor = await w.running()
    actor.say("x")
    actor.does(Doing.COMPACTING, progress=False)
    await passes(40.0)
    actor.does(Doing.MODEL, progress=False)
    assert await given_up(stream, actor) == pytest.approx(10.0, abs=0.1)


@story(profile=WATCHED)
async def test_delays_that_are_announced_in_a_row_add_up(w: World) -> None:
    """An agent that announces a second retry waits for both delays."""
    stream = await w.send("x")
    actor = await w.running()
    actor.say("x")
    for _ in range(2):
        actor.does(Doing.MODEL, progress=False, waits=60.0)
    assert await given_up(stream, actor) == pytest.approx(130.0, abs=0.1)


@story(profile=WATCHED)
async def test_a_retrys_delay_is_forgotten_with_progress(w: World) -> None:
    """What was waited before does not lengthen what comes after."""
    stream = await w.send("x")
    actor = await w.running()
    actor.does(Doing.MODEL, progress=False, waits=60.0)
    await passes(70.0)
    actor.say("x")
    assert await given_up(stream, actor) == pytest.approx(10.0, abs=0.1)


@story(profile=WATCHED)
async def test_a_report_ends_the_watch(w: World) -> None:
    """However long its outcome takes to be stored, a turn that is over is not stalled."""
    stream = await w.send("x")
    actor = await w.running()
    w.shelf.slow = 9.0
    await passes(15.0)
    actor.finish("x")
    actor.listener.on_quiet()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED
    w.shelf.slow = 0.001
    await passes(200.0)
    assert not actor.stopped


@story(profile=WATCHED)
async def test_an_interrupted_turn_is_not_stalled_as_well(w: World) -> None:
    """From the interrupt on only the proof of quiet is waited for."""
    stream = await w.send("x")
    actor = await w.running()
    await passes(19.0)
    assert await w.sessions.interrupt(turn_of(stream).key, turn_of(stream).turn_id)
    await passes(4.0)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(stream)).outcome is Outcome.INTERRUPTED


@story(profile=WATCHED)
async def test_a_turn_without_followers_is_watched_too(w: World) -> None:
    """With CONTINUE nobody may be there, and a wedged process would keep its slot."""
    async with await w.send("x", on_disconnect=Disconnect.CONTINUE):
        actor = await w.running()
    await passes(21.0)
    assert actor.stopped


@story(profile=WATCHED, bounds=StreamBounds(hold=1 << 20, unread=1000, slow=30.0))
async def test_a_slow_reader_does_not_make_the_agent_stalled(w: World) -> None:
    """While the agent waits for the reader, its own time does not count."""
    stream = await w.send("x")
    actor = await w.running()
    actor.say("x" * 1500)
    assert actor.paused
    await passes(25.0)
    await anext(aiter(stream))
    await passes(9.0)
    actor.answer()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED


@story(profile=WATCHED)
async def test_the_log_says_what_was_waited_for(w: World) -> None:
    """Process state and kernel wait channel are asked for before the process is stopped."""
    stream = await w.send("x")
    actor = await w.running()
    actor.does(Doing.TOOL)
    turn = turn_of(stream)
    await until(lambda: turn.watchdog is not None)
    assert turn.watchdog is not None
    assert turn.watchdog.phase == "tool"
    assert not actor.asked_condition
    await given_up(stream, actor)
    assert actor.asked_condition


class Alarm:
    """A watchdog by itself, and when it barked."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.barked: list[float] = []
        self.begin = self.loop.time()
        self.dog = Watchdog(PATIENCE, self.loop.time, self._bark)

    def _bark(self) -> None:
        self.barked.append(self.loop.time() - self.begin)


def test_what_is_held_does_not_count() -> None:
    """Holds nest, and the time begins anew when the last is released."""

    async def told() -> None:
        alarm = Alarm()
        alarm.dog.hold()
        alarm.dog.hold()
        await passes(1000.0)
        alarm.dog.release()
        await passes(1000.0)
        alarm.dog.see(Doing.TOOL, progress=True)
        await passes(1000.0)
        assert not alarm.barked
        alarm.dog.release()
        await passes(1000.0)
        assert alarm.barked == [pytest.approx(3100.0)]

    run(told())


def test_it_barks_once_and_never_after_its_end() -> None:
    """A watchdog that was stopped says nothing, whatever it sees."""

    async def told() -> None:
        alarm, silent = Alarm(), Alarm()
        silent.dog.stop()
        silent.dog.see(Doing.COMPACTING, progress=True)
        await passes(1000.0)
        alarm.dog.see(Doing.TOOL, progress=True)
        await passes(1000.0)
        assert (len(alarm.barked), silent.barked) == (1, [])

    run(told())


def test_it_shows_what_it_waits_for() -> None:
    """Its `repr` tells the phase and for how long."""

    async def told() -> None:
        alarm = Alarm()
        await passes(5.0)
        assert repr(alarm.dog) == "<Watchdog first for 5.000s holds=0>"
        alarm.dog.see(Doing.COMPACTING, progress=False)
        assert repr(alarm.dog) == "<Watchdog compact for 0.000s holds=0>"
        alarm.dog.stop()
        assert repr(alarm.dog) == "<Watchdog compact for 0.000s stopped>"

    run(told())
