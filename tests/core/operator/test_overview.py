"""Watching the pools, on a clock that jumps."""

import asyncio
import contextlib
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.core_runner import story
from support.noted import EPOCH
from support.world import World, passes

from samovard.core.errors import Draining
from samovard.core.operator.overview import Overview, ServerInfo, next_due
from samovard.core.sessions.conversation import Clocks


async def nothing(pids: Collection[int]) -> Mapping[int, int]:
    return {}


def overview(w: World) -> Overview:
    clock = asyncio.get_running_loop().time
    about = ServerInfo("server", "1", "none", "open", EPOCH, lambda: "1")
    return Overview(about, w.pool, w.sessions, Clocks(lambda: EPOCH + clock(), clock), nothing)


@story()
async def test_who_takes_too_long_misses_snapshots_and_gets_no_old_ones(w: World) -> None:
    """What comes next is of its own moment, and in step with those before."""
    clock = asyncio.get_running_loop().time
    begin, ages, steps = clock(), [], []
    async with contextlib.aclosing(overview(w).watch(1.0)) as snapshots:
        async for snapshot in snapshots:
            ages.append(clock() - snapshot.now)
            steps.append(snapshot.now - begin)
            if len(steps) == 5:
                break
            await passes(2.5 if len(steps) == 2 else 0.25)
    assert steps == pytest.approx([0, 1, 4, 5, 6])
    assert ages == pytest.approx([0] * 5)


@story()
async def test_watching_ends_as_soon_as_the_server_goes(w: World) -> None:
    """It does not wait for the next snapshot, and who comes later is told at once."""
    seen = overview(w)
    snapshots = seen.watch(60.0)
    await anext(snapshots)
    asyncio.get_running_loop().call_later(1.0, seen.close)
    begin = asyncio.get_running_loop().time()
    with pytest.raises(Draining):
        await anext(snapshots)
    assert asyncio.get_running_loop().time() - begin == pytest.approx(1.0)
    with pytest.raises(Draining):
        await anext(seen.watch(60.0))


@story()
async def test_a_moment_is_told_by_the_wall_clock(w: World) -> None:
    """A snapshot's times and its processes' are of one clock, which nobody sets meanwhile."""
    await w.turn()
    snapshot = await overview(w).look()
    now = asyncio.get_running_loop().time()
    assert snapshot.epoch + snapshot.now == pytest.approx(EPOCH + now)
    (row,) = snapshot.processes
    assert row.created < row.since < snapshot.now


@given(st.floats(0, 1e6), st.floats(0.1, 60), st.floats(0, 1e4))
def test_the_next_snapshot_is_never_due_in_the_past(
    due: float, interval: float, late: float
) -> None:
    """Nor is it further away than one interval."""
    now = due + late
    wait = next_due(due, interval, now) - now
    assert -1e-6 <= wait <= interval + 1e-6
