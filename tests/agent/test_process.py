"""One process, driven directly: no pool, no gRPC."""

import asyncio
import contextlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from fake_claude import fake, install, write_start
from fake_claude import verbs as v
from support.file_descriptors import descriptors
from support.service import until

from samovard.agent import child, launch, process
from samovard.agent.agents import ClaudeAgents, Delivery
from samovard.agent.binary import Cli
from samovard.agent.credentials import Env
from samovard.agent.home import Homes
from samovard.agent.process import AgentProcess
from samovard.core.errors import NoProcess
from samovard.core.events import (
    Event,
    Outcome,
    PermissionRequested,
    TextDelta,
    ToolResult,
    TurnFinished,
)
from samovard.core.process import (
    Allow,
    Broken,
    Deny,
    Doing,
    Exit,
    Launch,
    PermissionDecision,
    Prompt,
    Text,
)


class Ear:
    """Hears a process and remembers it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.reports: list[TurnFinished] = []
        self.heard: list[str] = []
        self.noise = 0
        self.exits: list[Exit] = []
        self.activity: list[tuple[Doing, bool, float]] = []

    def on_events(self, events: Sequence[Event], size: int, *, last: bool = False) -> None:
        self.events += events

    def on_activity(self, doing: Doing, *, progress: bool, waits: float, steps: int) -> None:
        self.activity.append((doing, progress, waits))

    def on_cost(self, usd: float) -> None:
        self.heard.append("cost")

    def on_finished(self, finished: TurnFinished, said: str = "") -> None:
        self.reports.append(finished)
        self.heard.append("finished")

    def on_already_run(self) -> None:
        self.heard.append("already-run")

    def on_quiet(self) -> None:
        self.heard.append("quiet")

    def on_unsolicited(self, frames: int) -> None:
        self.heard.append("unsolicited")

    def on_noise(self, lines: int) -> None:
        self.noise += lines

    def on_broken(self, how: Broken) -> None:
        self.heard.append(how.value)

    def on_exit(self, exit: Exit) -> None:
        self.exits.append(exit)

    @property
    def asked(self) -> list[str]:
        return [e.permission_id for e in self.events if isinstance(e, PermissionRequested)]

    @property
    def results(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, ToolResult)]

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))


class Pages:
    """A ledger in memory."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}

    async def add(self, process_id: str, pid: int, start_ticks: int) -> None:
        self.rows[process_id] = pid

    async def remove(self, process_id: str) -> None:
        self.rows.pop(process_id, None)


@asynccontextmanager
async def alone(
    directory: Path, *, started: bool = True, ask: bool = False
) -> AsyncIterator[tuple[AgentProcess, Ear, Pages]]:
    """Makes a process on the fake CLI; at the end nothing of it is left."""
    pages, ear = Pages(), Ear()
    profile = launch.LaunchOptions(model="haiku", path=os.defpath)
    delivery = Delivery(Env("KEY", {"KEY": "k"}))
    before = descriptors()
    with Homes(directory / "s") as homes:
        cli = Cli(install(directory))
        agents = ClaudeAgents(cli, None, homes, {"p": profile}, delivery, pages, "server", 1 << 20)
        names = (uuid.uuid4().hex, str(uuid.uuid4()))
        start = Launch(uuid.uuid4().hex, "t", "p", *names, resume=False, ask=ask)
        made = agents.create(start, ear)
        try:
            if started:
                await made.start()
            yield made, ear, pages
        finally:
            made.kill()
            await made.stop(suspect=True)
    assert pages.rows == {}
    assert descriptors() <= before


async def asked(ear: Ear, count: int) -> None:
    await until(lambda: len(ear.asked) == count)


def prompt(text: str) -> Prompt:
    return Prompt(str(uuid.uuid4()), (Text(text.encode()),))


def test_a_turn_is_heard_and_then_the_process_is_quiet(directory: Path) -> None:
    """Events, one report, and quiet, in this order; the ledger has the process meanwhile."""

    async def story() -> None:
        async with alone(directory) as (made, ear, pages):
            assert pages.rows == {made.process_id: made.pid}
            assert made.agent_version == "2.1.330"
            assert repr(made) == f"<AgentProcess {made.process_id} pid={made.pid} ready=True>"
            written: list[str] = []
            await made.write(prompt("Say hello"), lambda: written.append("yes"))
            assert written == ["yes"]
            await until(lambda: "quiet" in ear.heard)
            assert ear.text == "hello"
            assert ear.heard == ["finished", "quiet"]

    asyncio.run(story())


def test_written_is_told_before_anything_else(directory: Path) -> None:
    """Nothing of a turn is heard before its prompt is said to be written."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            seen: list[int] = []
            await made.write(prompt("x" * 500_000), lambda: seen.append(len(ear.events)))
            assert seen == [0]

    asyncio.run(story())


def test_an_interrupt_while_the_prompt_is_half_written_is_obeyed(directory: Path) -> None:
    """The interrupt waits behind the prompt, and the process proves to be quiet."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            text = fake(v.hang()) + "\n" + "x" * 900_000
            await made.write(prompt(text), lambda: None)
            assert await made.interrupt()
            assert [report.outcome for report in ear.reports] == [Outcome.INTERRUPTED]

    asyncio.run(story())


def test_an_idle_process_is_always_read(directory: Path) -> None:
    """A reader who is behind when the turn is over stops nobody else's turn."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            await made.write(prompt("Say one"), lambda: None)
            await until(lambda: "quiet" in ear.heard)
            made.pause()
            await made.write(prompt("Say two"), lambda: None)
            await until(lambda: ear.text == "onetwo")

    asyncio.run(story())


def test_a_proof_that_is_out_of_date_is_none(directory: Path) -> None:
    """What begins to work unasked right behind its proof of quiet is not quiet."""
    unasked = b'{"type":"system","subtype":"session_state_changed","state":"running"}\n'
    unasked += b'{"type":"system","subtype":"init"}\n'

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            ear.on_quiet = lambda: made._take(unasked)  # type: ignore[method-assign]  # as the next read
            await made.write(prompt(fake(v.hang())), lambda: None)
            assert not await made.interrupt()
            assert "unsolicited" in ear.heard

    asyncio.run(story())


def test_an_exit_is_heard_once_with_the_last_of_stderr(directory: Path) -> None:
    """How it ended, and what it said last."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            await made.write(prompt(fake(v.noise(), v.die("mid_text", code=7))), lambda: None)
            await until(lambda: ear.exits)
            assert [(exit.code, exit.signal) for exit in ear.exits] == [(7, None)]
            assert ear.exits[0].stderr
            assert len(ear.exits[0].stderr) <= 4096
            assert ear.noise == 3
            assert ear.exits[0].cut == 0

    asyncio.run(story())


def test_an_exit_tells_of_the_line_that_it_cut(directory: Path) -> None:
    """The bytes of what was written without an end."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            await made.write(prompt(fake(v.partial_line("exit"))), lambda: None)
            await until(lambda: ear.exits)
            assert ear.exits[0].cut > 10

    asyncio.run(story())


def test_what_breaks_the_protocol_is_told_once(directory: Path) -> None:
    """Nothing that comes behind it is heard but the exit."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            long = v.huge_line(2 << 20)
            await made.write(
                prompt(fake(long, v.text("late"), v.die("after_result"))), lambda: None
            )
            await until(lambda: ear.exits)
            made._stalled()
            assert (ear.heard, ear.text, ear.reports) == (["line-too-long"], "", [])

    asyncio.run(story())


def test_what_was_written_before_the_death_is_heard(directory: Path) -> None:
    """A report that lies in the pipe of a dead process still counts."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            await made.write(prompt(fake(v.text("last"), v.die("after_result"))), lambda: None)
            await until(lambda: ear.exits)
            assert [report.result for report in ear.reports] == ["last"]

    asyncio.run(story())


def test_nothing_is_written_to_the_dead(directory: Path) -> None:
    """A prompt that no pipe takes is refused as such."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            made.kill()
            await until(lambda: ear.exits)
            with pytest.raises(NoProcess) as error:
                await made.write(prompt("x"), lambda: pytest.fail("nothing was written"))
            assert error.value.cause == "process-died"

    asyncio.run(story())


def test_stop_may_be_called_at_any_time(directory: Path) -> None:
    """Before the start, twice, and after the death."""

    async def story() -> None:
        async with alone(directory, started=False) as (made, _, _pages):
            await made.stop(suspect=False)
        async with alone(directory) as (made, ear, _pages):
            await made.stop(suspect=False)
            await made.stop(suspect=False)
            assert len(ear.exits) == 1

    asyncio.run(story())


def test_stop_while_it_is_being_spawned_leaves_nothing(directory: Path) -> None:
    """A process that is stopped at any moment of its start is gone afterwards."""

    async def story() -> None:
        for steps in range(0, 60, 3):
            async with alone(directory, started=False) as (made, _, _pages):
                starting = asyncio.ensure_future(made.start())
                for _ in range(steps):
                    await asyncio.sleep(0.0005)
                await made.stop(suspect=True)
                with contextlib.suppress(NoProcess):  # or it was ready before
                    await starting
                assert made.pid == 0 or not Path(f"/proc/{made.pid}").exists()

    asyncio.run(story())


def test_the_ladder_ends_in_sigkill(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What ignores everything else is killed."""
    for name in ("EOF_TIMEOUT", "TERM_TIMEOUT"):
        monkeypatch.setattr(child, name, 0.1)

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            await made.write(prompt(fake(v.ignore("eof", "term", "int"))), lambda: None)
            await until(lambda: "quiet" in ear.heard)
            await made.stop(suspect=False)
            assert ear.exits[0].signal == 9

    asyncio.run(story())


def test_a_start_that_is_not_answered_is_given_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readiness has a deadline."""
    monkeypatch.setattr(process, "INIT_TIMEOUT", 0.1)

    async def story() -> None:
        write_start(directory, v.never_init())
        async with alone(directory, started=False) as (made, _, _pages):
            with pytest.raises(NoProcess) as error:
                await made.start()
            assert error.value.cause == "start-timeout"

    asyncio.run(story())


def test_a_paused_process_is_heard_after_it_is_resumed(directory: Path) -> None:
    """While nobody reads, the agent waits on its pipe, and nothing is lost."""

    async def story() -> None:
        async with alone(directory) as (made, ear, _):
            made.pause()
            await made.write(prompt(fake(v.events(5000, size=100))), lambda: None)
            assert ear.events == []
            made.resume()
            await until(lambda: "quiet" in ear.heard)
            assert len(ear.text) == 500_000

    asyncio.run(story())


def test_permission_is_given_with_the_input_as_it_was_or_another(directory: Path) -> None:
    """Each answer reaches the agent once, with an input of its own or the one it asked with."""

    async def story() -> None:
        async with alone(directory, ask=True) as (made, ear, _):
            verbs = [v.permission("Write", {"é": 12345678901234567890123}), v.permission()]
            await made.write(prompt(fake(*verbs, v.permission())), lambda: None)
            decisions: list[PermissionDecision] = [Allow(), Allow('{"b":2}'), Deny("no")]
            for count, decision in enumerate(decisions, 1):
                await asked(ear, count)
                for _ in range(2):
                    made.decide(ear.asked[-1], decision)
            await until(lambda: ear.reports)
            first, second, third = ear.results
            assert json.loads(first) == {"é": 12345678901234567890123}
            assert (json.loads(second), third) == ({"b": 2}, "no")

    asyncio.run(story())


def test_nobody_is_asked_whose_events_are_discarded(directory: Path) -> None:
    """An agent that asks while nobody listens is denied at once."""

    async def story() -> None:
        async with alone(directory, ask=True) as (made, ear, _):
            await made.write(prompt(fake(v.permission())), lambda: None)
            made.discard()
            await until(lambda: ear.reports)
            assert (ear.asked, ear.reports[0].result) == ([], "Denied.")

    asyncio.run(story())
