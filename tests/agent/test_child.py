"""A child from its start to its end."""

import asyncio
import subprocess

import pytest

from samovard.agent import process_tree
from samovard.agent.child import Child
from samovard.core.process import Exit


@pytest.mark.parametrize("told", [True, False])
def test_what_a_child_left_is_read_before_its_end_is_told(*, told: bool) -> None:
    """Also where the reading was held up: by then it ends, told to or by itself.

    More than the pipe holds, it would never end if nobody read it.
    """
    size = 1 << (21 if told else 12)

    async def story() -> list[int | None]:
        heard: list[int | None] = []
        ended = asyncio.Event()

        def exited(exit: Exit) -> None:
            heard.append(exit.code)
            ended.set()

        pipe = subprocess.PIPE
        command = ["/bin/sh", "-c", f"read go; head -c {size} /dev/zero; exit 3"]
        spawned = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True
        )
        marker = process_tree.marker("server", "process")
        child = Child(
            spawned, marker, lambda data: heard.append(len(data)), lambda: None, exited, 60.0
        )
        child.pipes.pause()
        child.pipes.write(b"\n")
        if not told:
            await ended.wait()
        await child.end(suspect=False)
        return heard

    *sizes, code = asyncio.run(story())
    assert (sum(size or 0 for size in sizes), code) == (size, 3)
