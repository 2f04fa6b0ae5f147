"""The pipes of a child: what it says on stderr."""

import asyncio
import subprocess

from samovard.agent.pipes import Pipes


def said(words: str) -> str:
    """Return what is kept of words that a child's `printf` writes to stderr."""

    async def story() -> str:
        child = subprocess.Popen(
            ["/bin/sh", "-c", f"printf '{words}' >&2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        pipes = Pipes(child, lambda data: None, lambda: None, 60.0)
        await asyncio.to_thread(child.wait)
        pipes.drain()
        kept = pipes.stderr
        pipes.close()
        return kept

    return asyncio.run(story())


def test_what_a_child_says_on_stderr_is_printable() -> None:
    """Control characters and broken text are replaced; lines, blanks and other letters stay."""
    words = r"a b\nc\033[31m\trot \303\274 \377\000end"
    assert said(words) == "a b\nc\ufffd[31m\ufffdrot \xfc \ufffd\ufffdend"


def test_what_a_child_says_on_stderr_holds_no_credential() -> None:
    """What looks like one is left out, before anybody logs it."""
    assert said("the key sk-ant-api03-0123456789 is bad") == "the key [...] is bad"
