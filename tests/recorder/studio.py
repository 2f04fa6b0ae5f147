"""Play scenes on the installed CLI and return its output, scrubbed.

Knows how a CLI is started for a recording; scenes decide on its input.
"""

import asyncio
import json
import os
import subprocess
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from support.timeouts import BOUND

from recorder.scenes import SCENES, Scene
from recorder.scrub import Json, Scrubber
from samovard.agent import binary, codec, launch, process_tree
from samovard.agent.home import Homes
from samovard.agent.selftest.raw_cli import RawCli, Site, idle
from samovard.core.process import Block, Prompt, Text
from samovard.standin import StandIn

CREDENTIAL = "a-key-that-is-none"


async def record(directory: Path, names: Iterable[str]) -> dict[str, list[Json]]:
    """Play scenes one after another; return the rows of each, its header first."""
    process_tree.become_subreaper()
    told: dict[str, list[Json]] = {}
    with Homes(directory / "s") as homes:
        async with StandIn() as stand_in:
            how = launch.Delivery.DESCRIPTOR
            site = Site(binary.find(None, ""), homes, how, stand_in.url, CREDENTIAL)
            version = _version(site.cli.path)
            for name in names:
                told[name] = await _played(site, directory / "s", SCENES[name], version)
    return told


def _version(path: Path) -> str:
    """Ask a CLI for its version."""
    return subprocess.check_output([path, "--version"], env={}, text=True).split()[0]


async def _played(site: Site, root: Path, scene: Scene, version: str) -> list[Json]:
    studio = Studio(site, scene)
    try:
        for part in scene.parts:
            cli = studio.next()
            async with cli:
                await part(studio)
    finally:
        await asyncio.to_thread(site.homes.remove, studio.home)
    return [studio.header(version), *studio.rows(root)]


class Studio:
    """One scene in the making: its actions on the CLI, whose lines are kept.

    The last part of a scene is what is kept; the parts before it are earlier processes of the same
    session.
    """

    def __init__(self, site: Site, scene: Scene) -> None:
        self._site = site
        self._scene = scene
        self._session = str(uuid.uuid4())
        self.home = uuid.uuid4().hex
        self.cli: RawCli
        self.turns: list[str] = []
        self._resumes = scene.resumes

    def next(self) -> RawCli:
        """Return the next process of the session."""
        self.cli = RawCli(
            self._site,
            self._scene.profile,
            home=self.home,
            session=self._session,
            resume=self._resumes,
            ask=self._scene.ask,
            variables=self._scene.variables,
        )
        self._resumes = True
        return self.cli

    # Input: what samovard writes, as it writes it.

    def write(self, *lines: bytes) -> None:
        """Write lines of the codec's, in one write."""
        self.cli.write(*(json.loads(line) for line in lines))

    async def begin(self, schema: str = "") -> None:
        """Send `initialize` and wait for the answer."""
        self.write(codec.initialize("init-1", "", schema))
        await self.cli.answer("init-1")

    def message(self, *blocks: Block | str, turn_id: str = "") -> bytes:
        """Return the line of a message."""
        self.turns.append(turn_id or str(uuid.uuid4()))
        content = tuple(
            Text(block.encode()) if isinstance(block, str) else block for block in blocks
        )
        return codec.message(Prompt(self.turns[-1], content))

    async def say(self, *blocks: Block | str, turn_id: str = "") -> None:
        """Run a whole turn."""
        self.write(self.message(*blocks, turn_id=turn_id))
        await self.end()

    # Output.

    async def end(self) -> None:
        """Wait until the CLI is idle."""
        await self.cli.until(idle, "the end of a turn")

    async def until(self, kind: str, **fields: object) -> Json:
        """Wait for a line of a type with these fields."""

        def is_it(line: Json) -> bool:
            return line.get("type") == kind and fields.items() <= line.items()

        return await self.cli.until(is_it, kind)

    async def deltas(self, count: int) -> None:
        """Wait for so many deltas."""
        for _ in range(count):
            await self.cli.until(_is_delta, "a delta")

    async def works(self, program: str) -> None:
        """Wait until a tool runs a program in this home: no line of the CLI says so."""
        async with asyncio.timeout(BOUND):
            while not _runs(program, self.home):
                await asyncio.sleep(0)

    async def asked(self) -> Json:
        """Wait for a request for permission and return it."""
        return await self.until("control_request")

    # The recording.

    def header(self, version: str) -> Json:
        """Return what was recorded, and how it was started."""
        arguments = launch.arguments(self._scene.profile, self.cli.launch)
        said = [a for a in arguments if not a.startswith(("--session-id=", "--resume="))]
        return {"claude": version, "arguments": said}

    def rows(self, root: Path) -> list[Json]:
        """Return the lines, scrubbed."""
        home = f"{root}/{self.home}"
        paths = {f"{home}/work": "/workspace", f"{home}/home": "/home/agent"}
        paths |= {f"{home}/config": "/config", f"{home}/tmp": "/scratch"}
        scrubber = Scrubber(paths)
        # The session's own id comes first, so that it is the same in each of its processes.
        scrubber.line({"session_id": self._session, "turns": self.turns})
        return [{"dir": row.way, "line": scrubber.line(row.line)} for row in self.cli.rows]


def _runs(program: str, home: str) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended at this moment
            named = (process / "comm").read_text().strip() == program
            if named and home in os.readlink(process / "cwd"):
                return True
    return False


def _is_delta(line: Json) -> bool:
    return bool(line.get("event", {}).get("type") == "content_block_delta")
