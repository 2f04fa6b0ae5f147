"""What is left in agents' home directories, and what it tells."""

import asyncio
import os
import uuid
from pathlib import Path

from fake_claude import install
from support.file_descriptors import no_descriptors

from samovard.agent import gone, launch
from samovard.agent.agents import ClaudeAgents, Delivery
from samovard.agent.binary import Cli
from samovard.agent.boot import NoLedger
from samovard.agent.credentials import Env
from samovard.agent.home import Homes
from samovard.agent.selftest.checks import PROFILE, SelfTest
from samovard.core.process import Launch
from samovard.standin import StandIn


def agents_of(homes: Homes, cli: Cli, upstream: str) -> ClaudeAgents:
    profile = launch.LaunchOptions("haiku", os.defpath)
    delivery = Delivery(Env("KEY", {"KEY": "k"}), upstream=upstream)
    return ClaudeAgents(cli, None, homes, {PROFILE: profile}, delivery, NoLedger(), "s", 1 << 20)


def test_a_machine_that_cannot_look_sees_no_transcript(directory: Path) -> None:
    """The turn before is not taken for one that can be resumed."""

    async def story() -> None:
        with Homes(directory / "s") as homes:
            agents = agents_of(homes, Cli(directory / "claude"), "")
            names = uuid.uuid4().hex, str(uuid.uuid4())
            start = Launch(uuid.uuid4().hex, "t", "p", *names, resume=False)
            transcript = homes.prepare(start.home).config / "projects" / "p"
            transcript.mkdir(parents=True)
            (transcript / f"{start.agent_session}.jsonl").write_text("{}")
            assert await agents.has_transcript(start)
            with no_descriptors():
                assert not await agents.has_transcript(start)

    asyncio.run(story())


def test_a_self_test_leaves_no_home(directory: Path) -> None:
    """Whatever it found."""

    async def story() -> None:
        with Homes(directory / "s") as homes:
            async with StandIn() as stand_in:
                agents = agents_of(homes, Cli(install(directory)), stand_in.url)
                tests = SelfTest(agents, stand_in, directory / "s", directory, secret=False)
                checks = await tests.run()
            assert checks[0].passed
            assert [entry for entry in os.listdir(directory / "s") if entry != "gone"] == []

    asyncio.run(story())


def test_a_directory_that_its_owner_closed_is_opened_up(directory: Path) -> None:
    """Before it is read: only root could read it as it is."""
    closed = directory / "closed"
    closed.mkdir(mode=0o000)
    with gone.held(os.open(directory, os.O_RDONLY | os.O_DIRECTORY)) as parent:
        os.close(gone._entered("closed", parent))
    assert closed.stat().st_mode & 0o777 == 0o700
