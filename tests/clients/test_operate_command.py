"""`samovar operate`, as a person and as a program use it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from fake_claude import fake
from fake_claude import verbs as v
from support.program import SAMOVAR, run
from support.pseudo_terminal import terminal
from support.service import Running, serving

import samovar
from samovar.exits import Exit

Operate = Callable[..., tuple[int, str, str]]


def operated(directory: Path, story: Callable[[Running, Operate], object]) -> None:
    """Run a story of a service and of its operator's commands, beside a turn that runs."""

    def operate(*arguments: str) -> tuple[int, str, str]:
        socket = f"unix:{directory / 'operator.sock'}"
        done = run(*SAMOVAR, "operate", *arguments, "--target", socket)
        return done.returncode, done.stdout, done.stderr

    async def tell() -> None:
        async with serving(directory, fake=True) as running:
            client = samovar.AsyncClient(running.address)
            async with client, client.send(fake(v.text("a"), v.hang())) as turn:
                await anext(turn)
                await asyncio.to_thread(story, running, operate)

    asyncio.run(tell())


def test_each_command_says_what_it_did(directory: Path) -> None:
    """In words, and as one object for machines."""

    def story(running: Running, operate: Operate) -> None:
        (runner,) = running.service.sessions._directory.unended()
        turn = runner.turn.turn_id
        assert operate("pause", "local") == (0, "turns of local wait\n", "")
        assert operate("resume", "all", "--json") == (0, '{"resumed": "all"}\n', "")
        drained = operate("drain", "local")
        assert drained == (0, "0 stop now, 1 when their turn ends\n", "")
        assert operate("interrupt", "local", "default") == (0, f"interrupted {turn}\n", "")
        unblocked = operate("unblock", "local", "default", "--json")
        assert json.loads(unblocked[1]) == {"was_blocked": False}
        assert operate("close", "local", "default", "--yes") == (0, "closed\n", "")
        assert operate("close", "local", "default", "--yes") == (0, "there was none\n", "")

    operated(directory, story)


def test_nothing_is_closed_unasked(directory: Path) -> None:
    """In a pipe nobody can be asked; a session that is not there is told."""

    def story(running: Running, operate: Operate) -> None:
        code, out, said = operate("close", "local", "default")
        assert (code, out) == (Exit.USAGE, "")
        assert said == "samovar: nobody can be asked: add --yes\n"
        code, out, said = operate("interrupt", "local", "other")
        assert (code, out) == (Exit.NOT_FOUND, "")
        assert said == "samovar: the tenant has no session other\n"
        assert len(running.service.sessions) == 1

    operated(directory, story)


def test_a_person_is_asked(directory: Path) -> None:
    """And only a yes closes the session."""

    def story(running: Running, _: Operate) -> None:
        socket = f"unix:{directory / 'operator.sock'}"
        command = ["operate", "close", "local", "default", "--target", socket]
        for answer, said in (("n", "nothing is closed"), ("y", "closed")):
            with terminal(directory, *command) as person:
                person.until("close default of local for good?")
                person.press(f"{answer}\n")
                person.until(said)
        assert len(running.service.sessions) == 0

    operated(directory, story)
