"""The bounds on processes: whose tree is killed, and who is left alone."""

from collections.abc import Mapping

import pytest
from support.core_runner import collect, fails, started, story
from support.world import World, passes, until

from samovard.core.errors import TurnLost
from samovard.core.events import StartMode
from samovard.core.pool.process_bounds import ProcessBounds
from samovard.core.pool.states import ProcessState


class Grown:
    """Trees that all have one size, and those that were killed."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.looks = 0
        self.killed: list[int] = []

    async def count(self, roots: Mapping[int, str]) -> Mapping[int, int]:
        self.looks += 1
        return dict.fromkeys(roots, self.size)

    async def kill(self, roots: Mapping[int, str], pid: int) -> None:
        assert pid in roots
        self.killed.append(pid)


def bounds(w: World, trees: Grown, **most: int) -> ProcessBounds:
    return ProcessBounds(w.pool, trees, most or {"default": 10}, w.noted)


@story()
async def test_a_tree_above_its_bound_is_killed_and_its_turn_lost(w: World) -> None:
    """The turn says why, it is told, and the next one resumes on another process."""
    stream = await w.send()
    actor = await w.running()
    trees = Grown(11)
    await bounds(w, trees).run()
    error = await fails(stream)
    assert isinstance(error, TurnLost)
    assert error.cause == "process-limit"
    assert trees.killed == [actor.pid]
    (told,) = (line for line in w.logs if line["event"] == "tree.too_large")
    assert (told["processes"], told["most"], told["state"]) == (11, 10, "running")
    assert w.noted.incidents["tree.too_large"] == 1
    assert started(await w.turn()).start_mode is StartMode.RESUMED


@story()
async def test_a_tree_at_its_bound_is_left(w: World) -> None:
    """Its turn goes on."""
    stream = await w.send()
    actor = await w.running()
    trees = Grown(10)
    await bounds(w, trees).run()
    actor.answer()
    await collect(stream)
    assert not trees.killed


@story()
async def test_a_process_that_idles_has_a_bound_too(w: World) -> None:
    """Something that its tools left behind may grow."""
    await w.turn()
    trees = Grown(11)
    await bounds(w, trees).run()
    await passes(5.0)
    assert len(trees.killed) == 1
    assert not len(w.pool)


@story()
async def test_all_trees_are_counted_by_one_look(w: World) -> None:
    """However many there are."""
    await w.turn(session="a")
    await w.turn(session="b")
    trees = Grown(10)
    await bounds(w, trees).run()
    assert trees.looks == 1


@story()
async def test_without_agents_nothing_is_looked_at(w: World) -> None:
    """Nor where no agent has a bound."""
    trees = Grown(11)
    await bounds(w, trees).run()
    await w.turn()
    await bounds(w, trees, other=1).run()
    assert not trees.looks


@story()
async def test_a_process_that_has_exited_is_not_counted(w: World) -> None:
    """Once it is reaped, its pid may be another's."""
    await w.turn()
    (process,) = w.pool
    w.stage.stop_time = 3.0
    w.stage.last.die()
    await until(lambda: process.state is ProcessState.EXITED)
    trees = Grown(11)
    await bounds(w, trees).run()
    assert not trees.looks


@story()
async def test_a_process_that_does_not_stop_yet_is_killed_again(w: World) -> None:
    """Its tree may grow until its main process is gone."""
    await w.turn()
    w.stage.stop_time = 3.0
    trees = Grown(11)
    for _ in range(2):
        await bounds(w, trees).run()
    assert len(trees.killed) == 2


@story()
async def test_a_look_that_fails_stops_nobody(w: World) -> None:
    """What repeats the look is told."""

    class Blind(Grown):
        async def count(self, roots: Mapping[int, str]) -> Mapping[int, int]:
            raise OSError("no look")

    await w.turn()
    with pytest.raises(OSError, match="no look"):
        await bounds(w, Blind(11)).run()
    (process,) = w.pool
    assert process.state is ProcessState.IDLE
