"""How much memory processes have, with all that descends from them."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.file_descriptors import no_free_descriptor
from support.timeouts import BOUND

from samovard.agent.procfs import FRESH, ResidentMemory, resident_bytes


@pytest.fixture
def family() -> Iterator[tuple[int, int]]:
    """A shell and its child, which both wait."""
    with subprocess.Popen(
        ["/bin/sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        child = int(shell.stdout.readline())
        end = time.monotonic() + BOUND
        # Until then it is a shell that has not become another program, or one without memory.
        while not (_is_sleep(child) and resident_bytes([child])[child]):
            assert time.monotonic() < end
        yield shell.pid, child
        os.kill(child, 9)


def _is_sleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep\0")


def test_a_process_has_its_childrens_memory(family: tuple[int, int]) -> None:
    """A child that is asked for itself counts for itself only."""
    shell, child = family
    together = resident_bytes([shell])
    apart = resident_bytes([shell, child])
    assert together.keys() == {shell}
    assert min(apart.values()) > 0
    assert together[shell] == apart[shell] + apart[child]


def test_who_is_gone_has_none() -> None:
    """A pid that no process has is told as 0."""
    assert resident_bytes([2**22 + 1]) == {2**22 + 1: 0}


def test_memory_is_measured_at_most_once_a_second() -> None:
    """Within it the same answer is given, unless somebody is asked about who is not in it."""

    async def story() -> None:
        now = 100.0
        resident = ResidentMemory(lambda: now)
        with subprocess.Popen(["/bin/sleep", "60"]) as child:
            before = (await resident.of([child.pid]))[child.pid]
            child.kill()
        assert before > 0
        assert await resident.of([child.pid]) == {child.pid: before}
        assert await resident.of([child.pid, 2**22 + 1]) == {child.pid: 0, 2**22 + 1: 0}
        now += FRESH
        assert await resident.of([child.pid]) == {child.pid: 0}

    asyncio.run(story())


def test_without_a_descriptor_memory_is_what_was_measured_last() -> None:
    """It is measured again once there is one."""

    async def story() -> None:
        now = 100.0
        memory = ResidentMemory(lambda: now)
        before = await memory.of([os.getpid()])
        assert before[os.getpid()] > 0
        now += FRESH
        with no_free_descriptor():
            assert await memory.of([os.getpid()]) is before
        assert await memory.of([os.getpid()]) is not before

    asyncio.run(story())
