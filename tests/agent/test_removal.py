"""Homes are moved away at once and erased in time, by threads of their own."""

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from support.file_descriptors import descriptors
from support.service import raw, serving, simple, until
from support.slow_disk import Disk, erasers
from support.timeouts import BOUND

from samovard.agent import removal as removal_module
from samovard.agent.home import Homes
from samovard.agent.removal import NEVER, Removal

NAME, OTHER, THIRD = (str(digit) * 32 for digit in range(3))
MANY = 40  # more than the threads of asyncio's own executor, which are 32 at most
Failures = list[tuple[str, str]]


@pytest.fixture
def place() -> Iterator[Path]:
    """A short path, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as path:
        yield Path(path) / "s"


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """The disk."""
    return Disk(monkeypatch)


def removing(place: Path, story: Callable[[Homes, Removal, Failures], Awaitable[None]]) -> Failures:
    """Run a story with a removal, and return what it was told of."""
    failures: Failures = []

    async def told() -> None:
        with Homes(place) as homes:
            with Removal(homes, lambda home, error: failures.append((home, error))) as removal:
                await story(homes, removal, failures)
            for thread in erasers():
                await asyncio.to_thread(thread.join, 20)

    before = descriptors()
    asyncio.run(told())
    assert descriptors() <= before
    assert not erasers()
    return failures


def fill(homes: Homes, name: str, *files: str) -> None:
    """Make a home with some files."""
    work = homes.prepare(name).work
    (work / "inner").mkdir()
    for file in files:
        (work / "inner" / file).write_text("text")


def gone(place: Path) -> list[str]:
    """Return what is still to be erased."""
    return os.listdir(place / "gone")


def test_a_removed_home_is_erased(place: Path) -> None:
    """With all that is in it; its name is free before that."""

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        fill(homes, NAME, "file")
        await removal.remove(NAME)
        assert not (place / NAME).exists()
        await removal.remove(NAME)
        await until(lambda: not gone(place) and not removal.pending)

    assert removing(place, story) == []


def test_a_home_has_its_name_again_while_the_old_one_is_erased(place: Path, disk: Disk) -> None:
    """The new one has nothing of the old one, and loses nothing to its removal."""

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        fill(homes, NAME, "blocks")
        with disk.blocks("unlink", "blocks"):
            await removal.remove(NAME)
            await until(lambda: disk.reached)
            assert removal.pending
            work = homes.prepare(NAME).work
            assert not os.listdir(work)
            (work / "kept").touch()
        await until(lambda: not gone(place))
        assert os.listdir(work) == ["kept"]

    removing(place, story)


def test_what_an_earlier_service_left_is_erased(place: Path) -> None:
    """A removal survives the service that began it."""
    with Homes(place) as homes:
        fill(homes, NAME, "file")
        homes.discard(NAME)
    assert gone(place)

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        await until(lambda: not gone(place))

    removing(place, story)


def test_what_cannot_be_erased_is_told_and_tried_again(place: Path, disk: Disk) -> None:
    """It does not keep others, is told once a round, and goes when the disk lets it."""

    async def story(homes: Homes, removal: Removal, failures: Failures) -> None:
        fill(homes, NAME, "fails", "other")
        with disk.fails("unlink", "fails"):
            await removal.remove(NAME)
            await until(lambda: failures)
            fill(homes, OTHER, "file")
            await removal.remove(OTHER)
            await until(lambda: all(entry.startswith(NAME) for entry in gone(place)))
            await until(lambda: removal.pending == 1)
            await until(lambda: len(failures) >= 2)
        await until(lambda: not gone(place) and not removal.pending)

    failures = removing(place, story)
    assert {home for home, _ in failures} == {NAME}
    assert {error for _, error in failures} == {"OSError(5, 'Input/output error')"}


def test_a_round_tells_one_failure_and_the_next_spares_what_failed(
    place: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails under many homes is one incident; each waits for its own next time."""
    monkeypatch.setattr(removal_module, "RETRY", NEVER)
    with Homes(place) as homes:
        for name in (NAME, OTHER):
            fill(homes, name, "fails")
            homes.discard(name)

    async def story(homes: Homes, removal: Removal, failures: Failures) -> None:
        await until(lambda: disk.reached == 2)
        fill(homes, THIRD, "file")
        await removal.remove(THIRD)
        await until(lambda: not any(entry.startswith(THIRD) for entry in gone(place)))
        await until(lambda: removal.pending == 2)

    with disk.fails("unlink", "fails"):
        failures = removing(place, story)
    assert len(failures) == 1
    assert disk.reached == 2


def test_what_fails_again_and_again_waits_longer_each_time(
    place: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten failures have nine pauses between them, each twice the one before."""
    monkeypatch.setattr(removal_module, "RETRY", 0.001)

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        fill(homes, NAME, "fails")
        begin = time.monotonic()
        await removal.remove(NAME)
        await until(lambda: disk.reached >= 10)
        assert time.monotonic() - begin > 0.001 * (2**9 - 1)

    with disk.fails("unlink", "fails"):
        removing(place, story)


def test_what_waits_to_be_moved_at_the_end_stays(place: Path, disk: Disk) -> None:
    """It is a session's home still: nobody was told that it is gone."""
    names = [f"{number:032x}" for number in range(removal_module.MOVERS + 1)]

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        for name in names:
            fill(homes, name)
        with disk.blocks("rename", *names):
            tasks = [asyncio.create_task(removal.remove(name)) for name in names]
            await until(lambda: disk.reached == removal_module.MOVERS)
            removal.__exit__(None, None, None)
        last = (await asyncio.gather(*tasks, return_exceptions=True))[-1]
        assert isinstance(last, asyncio.CancelledError)
        assert (place / names[-1]).exists()

    removing(place, story)


def test_a_home_that_cannot_be_moved_is_told_to_its_caller(place: Path, disk: Disk) -> None:
    """It stays as it is, and is removed the next time."""

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        fill(homes, NAME, "file")
        with disk.fails("rename", NAME), pytest.raises(OSError, match="Input/output"):
            await removal.remove(NAME)
        assert (place / NAME / "work" / "inner" / "file").exists()
        await removal.remove(NAME)
        assert not (place / NAME).exists()

    removing(place, story)


def test_a_disk_that_hangs_does_not_keep_the_service_from_ending(place: Path, disk: Disk) -> None:
    """The rest of what is erased then is left to the next service."""
    with disk.blocks("unlink", "a", "b") as free:

        async def begun(homes: Homes, removal: Removal, _: Failures) -> None:
            fill(homes, NAME, "a", "b")
            await removal.remove(NAME)
            await until(lambda: disk.reached)
            removal.__exit__(None, None, None)
            assert erasers(), "the end waited for the disk"
            free.set()

        removing(place, begun)
    assert disk.reached == 1
    assert gone(place)

    async def finished(homes: Homes, removal: Removal, _: Failures) -> None:
        await until(lambda: not gone(place))

    removing(place, finished)


def test_the_end_waits_a_moment_for_a_file_that_is_being_erased(
    place: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that does not hang nothing of it goes on behind the end."""
    monkeypatch.setattr(removal_module, "EXIT", BOUND)

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        fill(homes, NAME, "a")
        with disk.blocks("unlink", "a") as free:
            await removal.remove(NAME)
            await until(lambda: disk.reached)
            threading.Timer(0.1, free.set).start()
            removal.__exit__(None, None, None)
            assert free.is_set()
            assert not erasers()

    removing(place, story)


def test_two_may_erase_at_the_same_time(place: Path) -> None:
    """What the one has erased is no failure of the other."""

    async def story(homes: Homes, removal: Removal, _: Failures) -> None:
        for round in range(30):
            name = f"{round:032x}"
            fill(homes, name, *map(str, range(20)))
            await asyncio.gather(removal.remove(name), asyncio.to_thread(homes.remove, name))
        await until(lambda: not gone(place))

    assert removing(place, story) == []


@pytest.mark.parametrize("call", ["rename", "unlink"])
def test_a_cold_turn_starts_beside_removals_that_hang(
    directory: Path, disk: Disk, call: str
) -> None:
    """However many homes are moved away or erased on a disk that hangs."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            agents = run.service.agent.agents
            names = [f"{number:032x}" for number in range(MANY)]
            for name in names:
                home = agents._homes.prepare(name)
                (home.work / name).touch()
            with disk.blocks(call, *names):
                removals = [asyncio.create_task(agents.remove_home(name)) for name in names]
                await until(lambda: disk.reached)
                said = await raw(run.stub, simple("Say hello"), timeout=60)
                assert said[-1].events[-1].HasField("turn_finished")
                assert call != "rename" or not all(task.done() for task in removals)
            await asyncio.gather(*removals)

    asyncio.run(story())
