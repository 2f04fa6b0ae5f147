"""What the agents' home directories tell of them."""

import asyncio
import uuid
from pathlib import Path

from descriptors import few_descriptors

from samovard.agent.agents import ClaudeAgents, Delivery
from samovard.agent.cli import Cli
from samovard.agent.credentials import Env
from samovard.agent.home import Homes
from samovard.core.process import Launch


class NoLedger:
    """A ledger that nobody reads."""

    async def add(self, process_id: str, pid: int, start_ticks: int) -> None:
        pass

    async def remove(self, process_id: str) -> None:
        pass


def test_a_machine_that_cannot_look_sees_no_transcript(directory: Path) -> None:
    """The turn before is not taken for one that can be resumed."""

    async def story() -> None:
        with Homes(directory / "s") as homes:
            parts = homes, {}, Delivery(Env("KEY", {})), NoLedger(), "server", 1 << 20
            agents = ClaudeAgents(Cli(directory / "claude"), None, *parts)
            names = uuid.uuid4().hex, str(uuid.uuid4())
            start = Launch(uuid.uuid4().hex, "t", "p", *names, resume=False)
            transcript = homes.prepare(start.home).config / "projects" / "p"
            transcript.mkdir(parents=True)
            (transcript / f"{start.agent_session}.jsonl").write_text("{}")
            assert await agents.has_transcript(start)
            with few_descriptors(0):
                assert not await agents.has_transcript(start)

    asyncio.run(story())
