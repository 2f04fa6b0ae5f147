"""A start that is tried beside the pool, and how it ends."""

import asyncio
import os
from pathlib import Path

import pytest
from agent.test_process import Pages
from fake_claude import install

from samovard.agent import launch
from samovard.agent.agents import ClaudeAgents, Delivery
from samovard.agent.binary import Cli
from samovard.agent.credentials import Env
from samovard.agent.home import Homes
from samovard.agent.machine import Machine
from samovard.agent.selftest.trial import TrialStart


async def none() -> tuple[Cli, str]:
    raise AssertionError("the CLI did not change")


@pytest.mark.parametrize(("hurry", "signal"), [(False, None), (True, 9)])
def test_an_agent_is_killed_only_in_a_hurry(
    directory: Path, hurry: bool, signal: int | None
) -> None:
    """Without one it ends by itself. Nothing of it is left, and a second end is none."""

    async def story() -> None:
        with Homes(directory / "s") as homes:
            cli = Cli(install(directory))
            profile = launch.LaunchOptions(model="haiku", path=os.defpath)
            delivery = Delivery(Env("KEY", {"KEY": "k"}))
            profiles = {"p": profile}
            pages = Pages()
            agents = ClaudeAgents(cli, None, homes, profiles, delivery, pages, "server", 1 << 20)
            trial = TrialStart(agents, Machine((), directory, directory), none, "p")
            await trial.start()
            assert (process := trial.process)
            assert Path(f"/proc/{process.pid}").exists()
            await trial.end(hurry=hurry)
            assert process._exit.result().signal == signal
            assert trial.process is None
            assert not pages.rows
            assert not [path for path in (directory / "s").iterdir() if len(path.name) == 32]
            await trial.end(hurry=hurry)

    asyncio.run(story())
