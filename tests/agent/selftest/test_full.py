"""`samovard check`: what is tried of the agent, and how it is told."""

import asyncio
import json
import os
from io import StringIO
from pathlib import Path

from fake_claude import install, write_start
from fake_claude import verbs as v
from rich.console import Console
from support.program import SAMOVARD, config_of, run
from support.service import prepare

from samovard import checking
from samovard.agent import launch
from samovard.agent.binary import Cli
from samovard.agent.home import Homes
from samovard.agent.selftest.checks import Check
from samovard.agent.selftest.full import FullSelfTest
from samovard.agent.selftest.raw_cli import Site
from samovard.standin import StandIn

FATAL = 11
TRACES = ("a turn's trace context arrives", "an unsampled trace context exports nothing")
CHECKS = [
    Check("a turn is a turn", True),
    Check("it may be [odd]", False, "seen: [nothing]", fatal=False),
]


def configured(directory: Path, *, fake: bool) -> str:
    return str(config_of(directory, asyncio.run(prepare(directory, fake=fake))))


def test_the_real_agent_passes_every_check(directory: Path) -> None:
    """Each behaviour that the service leans on is there; all of it is tried, also what a start
    does not need."""
    done = run(
        *SAMOVARD, "check", "--agent", "--json", "--config", configured(directory, fake=False)
    )
    told = json.loads(done.stdout)
    assert [check for check in told["checks"] if not check["passed"]] == []
    assert (told["version"], told["passed"], done.returncode) == ("2.1.330", True, 0)
    assert sum(check["fatal"] for check in told["checks"]) == FATAL
    assert len(told["checks"]) > FATAL


def test_an_agent_that_fails_is_tried_to_the_end(directory: Path) -> None:
    """What never asks the API fails most checks, but each is tried, and told on a line."""
    done = run(*SAMOVARD, "check", "--agent", "--config", configured(directory, fake=True))
    first, *lines = done.stdout.splitlines()
    words = [line.split("\t")[0] for line in lines]
    assert first.startswith("claude 2.1.330, ")
    assert set(words) == {"ok", "FAILED", "missing"}
    assert "\ta turn is queued, started, reported and completed" in done.stdout
    assert done.stdout.count("upstream got nothing\n") == len(TRACES)
    assert len(words) > FATAL
    assert done.returncode == 1


def test_what_an_agent_dies_of_spoils_no_other_check(directory: Path) -> None:
    """The next one has a process of its own."""
    config = configured(directory, fake=True)
    write_start(directory, v.once(directory / "died", v.die("after_started")))
    done = run(*SAMOVARD, "check", "--agent", "--config", config)
    words = dict(line.split("\t")[1::-1] for line in done.stdout.splitlines()[1:])
    assert words["a turn lies between the lifecycle lines of its own id"] == "FAILED"
    assert words["a neighbour's message starts no turn"] == "ok"


def test_an_agent_without_lifecycle_lines_is_found_out(directory: Path) -> None:
    """What an older CLI does not say is missed, and the finding says what came instead."""

    async def story() -> list[Check]:
        binary = install(directory)
        write_start(directory, v.no_lifecycle())
        profile = launch.LaunchOptions("haiku", os.defpath)
        with Homes(directory / "s") as homes:
            async with StandIn() as stand_in:
                site = Site(Cli(binary), homes, launch.Delivery.DESCRIPTOR, stand_in.url, "k")
                return await FullSelfTest(site, stand_in, profile).run()

    order, *_ = asyncio.run(story())
    assert (order.passed, order.detail) == (False, "seen: result")


def test_a_binary_that_is_missing_is_a_line(directory: Path) -> None:
    """Without a CLI there is one line on stderr and exit code 1."""
    done = run(*SAMOVARD, "check", "--agent", "--config", str(config_of(directory, directory)))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    assert "agent.cli" in done.stderr


def test_settings_alone_are_checked_without_the_agent(directory: Path) -> None:
    """Without --agent nothing is started; a bad setting is a line and exit code 2."""
    config = directory / "c.toml"
    config.write_text("")
    assert run(*SAMOVARD, "check", "--config", str(config)).stdout == "settings\tok\n"
    config.write_text("[pool]\nslots = -1\n")
    assert run(*SAMOVARD, "check", "--config", str(config)).returncode == 2


def test_on_a_terminal_the_findings_are_a_table() -> None:
    """What was seen instead stands beside its behaviour, letter by letter."""
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=120, color_system=None)
    checking.show(console, Path("/opt/claude"), "2.1.330", CHECKS)
    assert "it may be [odd]" in screen.getvalue()
    assert "seen: [nothing]" in screen.getvalue()
    assert "missing" in screen.getvalue()


def test_only_fatal_findings_fail() -> None:
    """The service can do without what is not fatal."""
    assert checking.passed(CHECKS)
    assert not checking.passed([*CHECKS, Check("x", False)])
