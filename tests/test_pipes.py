"""The pipes of a child: what it says on stderr."""

import asyncio
import subprocess

from samovard.agent.pipes import Pipes


def test_what_a_child_says_on_stderr_is_printable() -> None:
    """Control characters and broken text are replaced; lines, blanks and other letters stay."""

    async def story() -> None:
        said = r"printf 'a b\nc\033[31m\trot \303\274 \377\000end' >&2"
        child = subprocess.Popen(
            ["/bin/sh", "-c", said],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        pipes = Pipes(child, lambda data: None, lambda: None, 60.0)
        await asyncio.to_thread(child.wait)
        pipes.drain()
        assert pipes.stderr == "a b\nc\ufffd[31m\ufffdrot \xfc \ufffd\ufffdend"
        pipes.close()

    asyncio.run(story())
