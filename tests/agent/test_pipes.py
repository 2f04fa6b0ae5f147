"""The pipes of a child: what it says on stderr."""

import asyncio
import os
import subprocess

from support.service import until

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


def test_what_is_written_is_taken_until_the_input_ends() -> None:
    """Behind that nothing is."""

    async def story() -> list[bool]:
        command = ["/bin/cat"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as child:
            pipes = Pipes(child, lambda data: None, lambda: None, 60.0)
            told = [pipes.write(b"one"), pipes.write(b"two")]
            pipes.close_input()
            told.append(pipes.write(b"three"))
            await asyncio.to_thread(child.wait)
            pipes.close()
        return told

    assert asyncio.run(story()) == [True, True, False]


def test_what_is_closed_is_watched_no_more() -> None:
    """The number of a closed file is another one's soon."""

    async def story() -> list[bool]:
        pipe = subprocess.PIPE
        with subprocess.Popen(["/bin/cat"], stdin=pipe, stdout=pipe, stderr=pipe) as child:
            ends = [file.fileno() for file in (child.stdout, child.stderr) if file is not None]
            Pipes(child, lambda data: None, lambda: None, 60.0).close()
            return [asyncio.get_running_loop().remove_reader(end) for end in ends]

    assert asyncio.run(story()) == [False, False]


def test_a_child_that_takes_a_little_is_not_stalled() -> None:
    """The time for it to take input begins anew with each byte that it takes."""

    async def story() -> None:
        pipe = subprocess.PIPE
        with subprocess.Popen(["/bin/sleep", "60"], stdin=pipe, stdout=pipe, stderr=pipe) as child:
            pipes = Pipes(child, lambda data: None, lambda: None, 60.0)
            pipes.write(b"x" * (1 << 20))
            waits = pipes._stalled
            taking = os.open(f"/proc/{child.pid}/fd/0", os.O_RDONLY)
            os.read(taking, 1 << 16)
            await until(lambda: pipes._stalled is not waits)
            os.close(taking)
            pipes.close()
            child.kill()

    asyncio.run(story())
