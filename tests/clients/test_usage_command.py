"""`samovar usage`, as a person and as a program read it."""

import asyncio
import json
import re
from datetime import UTC, datetime
from pathlib import Path

from support.program import SAMOVAR, run
from support.pseudo_terminal import terminal
from support.service import Running, serving

import samovar
from samovar.exits import Exit


def used(directory: Path, story: object) -> None:
    """Run a story of a service where two turns have ended."""

    async def tell() -> None:
        async with serving(directory, fake=True) as running:
            async with samovar.AsyncClient(running.address) as client:
                for _ in range(2):
                    await client.ask("Say x")
            await asyncio.to_thread(story, running)  # type: ignore[arg-type]

    asyncio.run(tell())


def today() -> str:
    return datetime.now(UTC).date().isoformat()


def test_a_pipe_gets_a_line_for_each_day_and_model(directory: Path) -> None:
    """Days are those that were asked for; what no turn used prints nothing."""

    def story(running: Running) -> None:
        before = today()
        done = run(*SAMOVAR, "usage", "--target", running.address)
        day, model, turns, lost, *counts = done.stdout.rstrip("\n").split("\t")
        assert (done.returncode, done.stderr) == (0, "")
        assert (before <= day <= today(), turns, lost) == (True, "2", "0")
        assert model
        assert len(counts) == 5
        ended = run(*SAMOVAR, "usage", "--target", running.address, "--to", "2020-01-31")
        assert (ended.returncode, ended.stdout) == (0, "")

    used(directory, story)


def test_json_has_every_field(directory: Path) -> None:
    """The operator's has the tenant, too."""

    def story(running: Running) -> None:
        mine = json.loads(run(*SAMOVAR, "usage", "--json", "--target", running.address).stdout)
        assert (mine["turns"], mine["lost_turns"], mine["tenant"]) == (2, 0, "")
        assert mine["usage"]["output_tokens"] > 0
        socket = f"unix:{directory / 'operator.sock'}"
        done = run(*SAMOVAR, "usage", "--json", "--tenant", "all", "--target", socket)
        assert json.loads(done.stdout) == mine | {"tenant": "local"}
        other = run(*SAMOVAR, "usage", "--json", "--tenant", "acme", "--target", socket)
        assert (other.returncode, other.stdout) == (0, "")

    used(directory, story)


def test_a_terminal_is_shown_a_table_with_its_sum(directory: Path) -> None:
    """And told if there is nothing to show."""

    def story(running: Running) -> None:
        with terminal(directory, "usage", "--target", running.address) as shown:
            assert shown.exit_code() == 0
            lines = re.sub("\x1b\\[[0-9;]*m", "", shown.raw).splitlines()
        assert lines[0].split()[:4] == ["DAY", "MODEL", "TURNS", "LOST"]
        assert "total" in lines[-1]
        with terminal(directory, "usage", "--to", "2020-01-31", "--target", running.address) as no:
            assert no.exit_code() == 0
            assert no.raw == "nothing was used in these days\r\n"

    used(directory, story)


def test_days_that_are_none_are_told(directory: Path) -> None:
    """By the command, and by the service if they are in the wrong order."""

    def story(running: Running) -> None:
        wrong = run(*SAMOVAR, "usage", "--from", "yesterday", "--target", running.address)
        assert wrong.returncode == Exit.USAGE
        days = "--from", "2026-02-01", "--to", "2026-01-01"
        late = run(*SAMOVAR, "usage", *days, "--target", running.address)
        assert late.returncode == Exit.USAGE
        assert late.stderr == ("samovar: last_day: must be at most 365 days after first_day\n")

    used(directory, story)
