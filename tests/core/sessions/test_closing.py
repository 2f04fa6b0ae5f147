"""A close is work of the service: it ends whether or not its caller waits, and once for all."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from support.answering_process import Company
from support.await_points import Fate
from support.core_runner import collect, started, story
from support.memory_store import Shelf
from support.send_scenarios import CALL, SERVICE, check_at_rest
from support.world import World, passes, run, world
from telemetry.test_incidents import told

from samovard.core.errors import Draining, Internal, NoProcess, SamovarError, SessionNotFound
from samovard.core.events import StartMode
from samovard.core.records import SessionKey, SessionRecord
from samovard.core.sessions.session import SessionState

KEY = SessionKey("acme", "default")
SLOW = 60.0  # seconds that a removal takes: longer than any caller waits
BAD = OSError(5, "Input/output error")


async def exists(w: World) -> bool:
    """Tell whether the session exists; every way to ask must agree."""
    try:
        await w.sessions.get(KEY)
        got = True
    except SessionNotFound:
        got = False
    listed = bool(await w.sessions.list("acme", None, 10))
    assert got == listed == (KEY in w.shelf.sessions)
    return got


async def closed_for_good(w: World) -> None:
    """Check that nothing is left of the session and that its name is free."""
    assert not await exists(w)
    assert (w.shelf.sessions, w.shelf.turns, len(w.sessions)) == ({}, {}, 0)
    assert await w.sessions.close(KEY) is None
    assert started(await w.turn("new", turn_id="new")).start_mode is StartMode.COLD


@story()
async def test_a_close_goes_on_without_its_caller(w: World) -> None:
    """A caller that leaves while the directory is removed has closed the session."""
    await w.turn()
    w.stage.removal_time = SLOW
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(w.sessions.close(KEY), 5)
    await passes(SLOW)
    w.stage.removal_time = 0.0
    await closed_for_good(w)


@story()
async def test_later_closes_and_turns_wait_for_a_close_that_lost_its_caller(w: World) -> None:
    """They see a name that is free, and the directory is removed once."""
    await w.turn()
    w.stage.removal_time = SLOW
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(w.sessions.close(KEY), 5)
    again = asyncio.create_task(w.sessions.close(KEY))
    send = asyncio.create_task(w.send("new"))
    await passes(5)
    assert not again.done()
    assert not send.done()
    assert await again is None
    stream = await send
    w.stage.removal_time = 0.0
    (await w.running(actors=2)).answer("new")
    assert started(await collect(stream)).start_mode is StartMode.COLD
    assert len(w.stage.removed) == 1


@story()
async def test_a_close_takes_as_long_as_its_directory(w: World) -> None:
    """A directory that takes longer than 20 s is no process that does not end."""
    await w.turn()
    w.stage.removal_time = SLOW
    info = await w.sessions.close(KEY)
    assert info is not None
    assert info.state is SessionState.CLOSED


@story()
async def test_a_directory_that_stays_fails_the_close(w: World) -> None:
    """The session is as it was, and can be closed again."""
    await w.turn("one", turn_id="one")
    w.stage.removal_errors = [BAD]
    with pytest.raises(Internal) as failed:
        await w.sessions.close(KEY)
    assert failed.value.cause == "removal-failed"
    assert told(w, "removal.failed")["home"] == w.stage.created[0].launch.home
    assert await exists(w)
    assert started(await w.turn("two")).start_mode is StartMode.RESUMED
    assert await w.sessions.close(KEY) is not None
    await closed_for_good(w)


@story()
async def test_records_that_stay_fail_the_close(w: World) -> None:
    """Closed again once the store is back, the session is gone."""
    await w.turn()
    w.stage.removal_time = 1.0
    closing = asyncio.create_task(w.sessions.close(KEY))
    await passes(0.5)
    w.shelf.down = True
    with pytest.raises(NoProcess) as failed:
        await closing
    assert failed.value.cause == "store-down"
    w.shelf.down = False
    assert await exists(w)
    assert await w.sessions.close(KEY) is not None
    w.stage.removal_time = 0.0
    await closed_for_good(w)


@story()
async def test_a_close_that_fails_fails_for_its_caller_alone(w: World) -> None:
    """One that waited for it closes the session itself."""
    await w.turn()
    w.stage.removal_time, w.stage.removal_errors = 1.0, [BAD]
    first, second = await asyncio.gather(
        w.sessions.close(KEY), w.sessions.close(KEY), return_exceptions=True
    )
    assert isinstance(first, Internal)
    assert not isinstance(second, BaseException | None)
    w.stage.removal_time = 0.0
    await closed_for_good(w)


@story()
async def test_only_a_process_that_does_not_end_is_quarantined(w: World) -> None:
    """The close says so, and succeeds once the process is gone."""
    await w.turn()
    w.stage.undead = True
    with pytest.raises(Internal) as failed:
        await w.sessions.close(KEY)
    assert failed.value.cause == "quarantined"
    assert await exists(w)
    w.stage.undead = False
    await passes(30)
    assert await w.sessions.close(KEY) is not None
    await closed_for_good(w)


@story()
async def test_a_close_that_the_end_of_the_service_cuts_says_so(w: World) -> None:
    """Its caller may come again: the records are there as long as it is not answered."""
    await w.turn()
    w.stage.removal_time = SLOW
    closing = asyncio.create_task(w.sessions.close(KEY))
    await passes(1)
    w.pool.abandon()
    with pytest.raises(Draining):
        await closing
    assert KEY in w.shelf.sessions


class Ahead(Shelf):
    """Reads a session when it is asked, and tells it later."""

    async def load(self, key: SessionKey) -> SessionRecord | None:
        record = self.sessions.get(key)
        await super().load(key)
        return record


@story(shelf=Ahead())
async def test_a_session_that_was_closed_during_a_look_is_closed_once(w: World) -> None:
    """A close that saw it in the store while another one closed it counts nothing twice."""
    await w.turn()
    w.stage.last.die()
    await passes(600)
    first = asyncio.create_task(w.sessions.close(KEY))
    await asyncio.sleep(0)
    w.shelf.slow = 1.0
    second = asyncio.create_task(w.sessions.close(KEY))
    await asyncio.sleep(0)
    w.shelf.slow = 0.001
    assert await first is not None
    assert await second is None
    assert w.pool.counters.of("acme", "default").sessions == 0
    assert len(w.stage.removed) == 1


# A cancel, or another close, at every await.


@dataclass(frozen=True)
class Scene:
    """What is closed: `runs` a turn, or is in the `store` alone; and how its removal goes."""

    runs: bool = False
    store: bool = False
    takes: float = 0.0
    error: Exception | None = None


SCENES = {
    "a warm session": Scene(),
    "a session with a turn": Scene(runs=True),
    "a session of old": Scene(store=True),
    "a large directory": Scene(takes=SLOW),
    "a large directory under a turn": Scene(runs=True, takes=SLOW),
    "a directory that stays": Scene(error=BAD),
    "a large directory that stays": Scene(store=True, takes=SLOW, error=BAD),
}
Strike = Callable[["World", "asyncio.Task[object]"], object]


def cancel(w: World, call: "asyncio.Task[object]") -> None:
    """The caller leaves."""
    call.cancel()


def lose_the_store(w: World, call: "asyncio.Task[object]") -> None:
    """The store is down for a while."""
    w.shelf.down = True
    asyncio.get_running_loop().call_later(0.3, setattr, w.shelf, "down", False)


def die(w: World, call: "asyncio.Task[object]") -> None:
    """Every process is killed."""
    assert isinstance(w.stage, Company)
    for performer in w.stage.living:
        performer.die()


def happens(scene: Scene, strike: Strike, at: int, *, woken: bool) -> bool:
    """Close a session while something happens at an await. Return whether there was one."""
    fates: list[Fate] = []

    async def told() -> None:
        async with world(stage=Company()) as w:
            calls: list[asyncio.Task[object]] = []
            fate = Fate(at, (CALL, *SERVICE), lambda: strike(w, calls[0]), woken=woken)
            fates.append(fate)
            fate.watch(asyncio.get_running_loop())
            await collect(await w.send("before", turn_id="before"))
            if scene.store:
                die(w, asyncio.current_task())  # type: ignore[arg-type]  # not used
                await passes(600)
            w.stage.removal_time = scene.takes
            w.stage.removal_errors = [scene.error] if scene.error else []
            stream = await w.send("beside", turn_id="beside") if scene.runs else None
            await passes(0.015 if scene.runs else 0)
            fate.begun = True
            calls.append(asyncio.create_task(w.sessions.close(KEY), name=CALL))
            await asyncio.wait(calls)
            if stream is not None:
                await asyncio.wait([asyncio.ensure_future(ended(stream))])
            await passes(2 * SLOW)
            fate.begun = False
            await check_at_rest(w)
            await check_closed_or_not(w, calls[0])

    run(told())
    return bool(fates[0].struck)


async def ended(stream: object) -> None:
    """Read a stream to its end, whatever that is."""
    try:
        await collect(stream)  # type: ignore[arg-type]  # a stream of any kind
    except SamovarError:
        pass


async def check_closed_or_not(w: World, call: "asyncio.Task[object]") -> None:
    """Check that the session is gone, or is there and can be closed."""
    w.stage.removal_time, w.stage.removal_errors = 0.0, []
    there = await exists(w)
    if not call.cancelled():
        assert there == (call.exception() is not None), "the answer is not true"
    if there:
        assert await w.sessions.close(KEY) is not None
    assert not await exists(w)
    assert (w.shelf.sessions, w.shelf.turns, len(w.sessions)) == ({}, {}, 0)
    assert w.pool.counters.of("acme", "default").sessions == 0
    assert await w.sessions.close(KEY) is None
    await collect(await w.send("after", turn_id="after"))
    await check_at_rest(w)


@pytest.mark.parametrize("strike", [cancel, lose_the_store, die], ids=lambda f: str(f.__name__))
@pytest.mark.parametrize("name", SCENES)
def test_whatever_happens_at_an_await_of_a_close(name: str, strike: Strike) -> None:
    """The session is gone for every call, or it is there and can be closed."""
    for woken in (False, True):
        at = 0
        while happens(SCENES[name], strike, at, woken=woken):
            at += 1
        assert at > 1


@story()
async def test_a_tenant_that_is_let_go_keeps_what_is_stored(w: World) -> None:
    """Its processes end and its sessions are dropped, its directories and records stay; another
    tenant's process does, too."""
    await w.turn()
    theirs = SessionKey("blue", "default")
    await w.turn(tenant="blue")
    assert not await w.sessions.let_go("acme")
    assert await w.sessions.let_go("acme")
    assert [process.key for process in w.pool] == [theirs]
    assert (len(w.sessions), w.stage.removed) == (1, [])
    assert set(w.shelf.sessions) == {KEY, theirs}
    assert started(await w.turn("again", turn_id="again")).start_mode is StartMode.RESUMED


@story()
async def test_a_close_under_way_is_left_to_end(w: World) -> None:
    """A tenant that is let go meanwhile is not rid of it yet."""
    await w.turn()
    w.stage.removal_time = 1.0
    closing = asyncio.create_task(w.sessions.close(KEY))
    await passes(0.5)
    assert not await w.sessions.let_go("acme")
    assert await closing is not None
    assert await w.sessions.let_go("acme")
    w.stage.removal_time = 0.0
    await closed_for_good(w)
