"""The bounds on the disk: who is stopped, and who is left alone."""

from support.core_runner import collect, finished, started, story
from support.world import World, passes, until

from samovard.core.events import Notice, Outcome, StartMode
from samovard.core.pool.states import ProcessState
from samovard.core.sessions.conversation import SessionRules
from samovard.core.sessions.disk_bounds import DiskBounds

BOUNDED = SessionRules(max_disk=1000)


class Disk:
    """What each home takes, and which were looked at."""

    def __init__(self, used: int) -> None:
        self.used = used
        self.looks: list[tuple[str, int]] = []

    async def __call__(self, home: str, most: int) -> int:
        self.looks.append((home, most))
        return self.used


def bounds(w: World, disk: Disk) -> DiskBounds:
    return DiskBounds(w.directory, w.pool, disk)


@story(profile=BOUNDED)
async def test_a_turn_is_interrupted_above_the_bound(w: World) -> None:
    """A notice says why, and the process serves on."""
    stream = await w.send()
    actor = await w.running()
    await bounds(w, Disk(1000)).run()
    assert not actor.proofs
    await bounds(w, Disk(1001)).run()
    await until(lambda: actor.proofs)
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    events = await collect(stream)
    assert finished(events).outcome is Outcome.LIMIT_REACHED
    (notice,) = (event for event in events if isinstance(event, Notice))
    assert notice.message == "the turn reached its bound of 1000 bytes of disk"
    assert started(await w.turn()).start_mode is StartMode.WARM


@story(profile=BOUNDED)
async def test_a_process_that_idles_is_stopped_above_the_bound(w: World) -> None:
    """Something that it left behind may write. The session is served again, by another."""
    await w.turn()
    (process,) = w.pool
    await bounds(w, Disk(1000)).run()
    assert process.state is ProcessState.IDLE
    await bounds(w, Disk(1001)).run()
    await passes(5.0)
    assert not len(w.pool)
    assert started(await w.turn()).start_mode is StartMode.RESUMED


@story(profile=BOUNDED)
async def test_a_turn_that_does_not_run_yet_is_left(w: World) -> None:
    """It may free what is too much."""
    stream = await w.send()
    await bounds(w, Disk(1001)).run()
    actor = await w.running()
    assert not actor.proofs
    actor.answer()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED


@story()
async def test_a_session_without_a_bound_is_not_measured(w: World) -> None:
    """Nor one without a process, which cannot grow."""
    await w.turn()
    disk = Disk(1001)
    await bounds(w, disk).run()
    assert not disk.looks
