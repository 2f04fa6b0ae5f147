"""A pool in which nothing can be started: what still works, and what is told to whom."""

from support.core_runner import collect, fails, finished, started, story
from support.world import World, passes

from samovard.core.errors import NoProcess, TranscriptLost
from samovard.core.events import StartMode
from samovard.core.records import SessionKey

REFUSAL = NoProcess("no agent can be started", cause="start-failed", retry_after=5.0)
A = SessionKey("acme", "a")


@story()
async def test_a_warm_session_is_served_while_nothing_can_start(w: World) -> None:
    """Its process is there already; whoever needs a start is told at once."""
    await w.turn("one", session="a")
    w.pool.hold(REFUSAL)
    assert started(await w.turn("two", session="a")).start_mode is StartMode.WARM
    assert await fails(await w.send(session="b")) is REFUSAL
    assert len(w.stage.created) == 1
    w.pool.hold(None)
    assert finished(await w.turn("three", session="b")).result == "three"


@story(slots=1, idle_ttl=60.0)
async def test_an_idle_process_is_kept_while_nothing_could_take_its_place(w: World) -> None:
    """It is neither evicted for another session nor stopped for its time; later it is."""
    await w.turn(session="a")
    w.pool.hold(REFUSAL)
    await passes(600.0)
    await fails(await w.send(session="b"))
    assert w.pool.process_of(A)
    w.pool.hold(None)
    await passes(1.0)
    assert not w.pool.process_of(A)


@story(slots=1)
async def test_whoever_waits_for_a_start_is_told_when_none_can_come(w: World) -> None:
    """A turn behind its own session's turn goes on waiting: its process is there."""
    first = await w.send(session="a")
    actor = await w.running()
    behind, homeless = await w.send(session="a"), await w.send(session="b")
    w.pool.hold(REFUSAL)
    assert await fails(homeless) is REFUSAL
    actor.answer()
    await collect(first)
    await w.running(prompts=2)
    actor.answer("mine")
    assert finished(await collect(behind)).result == "mine"


@story(slots=2)
async def test_a_turn_whose_process_dies_before_its_prompt_is_told_the_refusal(w: World) -> None:
    """It is not started over in vain."""
    await w.turn(session="a")
    w.pool.hold(REFUSAL)
    w.stage.deaf_writes = 1
    assert await fails(await w.send(session="a")) is REFUSAL


@story(slots=3)
async def test_too_few_descriptors_cost_one_idle_process(w: World) -> None:
    """What it held comes free; the caller may repeat, and the others stay warm."""
    await w.turn(session="a")
    await w.turn(session="b")
    w.stage.start_errors = [NoProcess("too few", cause="out-of-descriptors", retry_after=1.0)]
    assert (await fails(await w.send(session="c"))).cause == "out-of-descriptors"
    await passes(1.0)
    assert w.pool.process_of(A) is None
    assert w.pool.process_of(SessionKey("acme", "b"))


@story()
async def test_the_pool_tells_how_starts_go(w: World) -> None:
    """A lost transcript is the session's misfortune, not the spawner's."""
    failed = NoProcess("no", cause="start-failed", retry_after=1.0)
    w.stage.start_errors = [failed]
    await fails(await w.send(session="a"))
    await w.turn(session="a")
    w.stage.last.die()
    await w.settled()
    w.stage.start_errors = [TranscriptLost()]
    await fails(await w.send(session="a"))
    assert w.starts.heard == [(A, failed), (A, None)]
