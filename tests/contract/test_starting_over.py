"""Sessions of which the agent kept nothing start over; those that lost something do not."""

import asyncio
import os
import signal
from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.service import Running, serving, until

import samovar
from samovard.standin import delay, script, text

#: A model that says nothing until the turn is interrupted.
SILENT = script([delay(300.0), text("too late")])
PATIENT = 240.0  # seconds, for a machine that is busy


async def stopped(run: Running, prompt: str) -> int:
    """Run a turn that is interrupted at once, and return its process."""
    pid = 0
    async with run.client.send(prompt, deadline=PATIENT) as turn:
        async for event in turn:
            if isinstance(event, samovar.TurnStarted):
                pid = event.pid
                await run.client.interrupt(turn.turn_id, "default")
            elif isinstance(event, samovar.TurnFinished):
                assert event.outcome is samovar.Outcome.INTERRUPTED
    return pid


async def killed(run: Running, pid: int) -> None:
    """Kill an idle process and wait until nothing is left of it."""
    os.kill(pid, signal.SIGKILL)
    await until(lambda: all(process.handle.pid != pid for process in run.service.pool))


async def started_over(run: Running, prompt: str = "Say on") -> bool:
    """Run a turn and return whether it told that its session started over, cold."""
    async with run.client.send(prompt) as turn:
        events = [event async for event in turn]
    (started,) = (e for e in events if isinstance(e, samovar.TurnStarted))
    told = "started-over" in [e.code for e in events if isinstance(e, samovar.Notice)]
    assert told is (started.start_mode is samovar.StartMode.COLD)
    assert any(isinstance(e, samovar.TurnFinished) and e.result == "on" for e in events)
    return told


def test_a_first_turn_that_is_interrupted_at_once_costs_the_session_nothing(
    directory: Path,
) -> None:
    """The real CLI has written nothing by then; once it has, the conversation is gone on with."""

    async def story() -> None:
        async with serving(directory) as run:
            await killed(run, await stopped(run, SILENT))
            kept = [*directory.glob("s/*/config/projects/*/*.jsonl")]
            assert await started_over(run) is not bool(kept)
            (process,) = run.service.pool
            await killed(run, process.handle.pid)
            assert not await started_over(run)

    asyncio.run(story())


@pytest.mark.parametrize("kept", [False, True])
def test_what_was_kept_of_an_interrupted_turn_decides(directory: Path, kept: bool) -> None:
    """A transcript that was there at a turn's end and is gone is lost; else there was none."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            async with run.client.send(fake(v.text("a"), v.hang())) as turn:
                async for event in turn:
                    if isinstance(event, samovar.TextDelta):
                        if not kept:
                            unlink(directory)
                        await run.client.interrupt(turn.turn_id, "default")
            (process,) = run.service.pool
            await killed(run, process.handle.pid)
            unlink(directory)
            if kept:
                with pytest.raises(samovar.TranscriptLost):
                    await run.client.ask("Say on")
            else:
                assert await started_over(run)

    asyncio.run(story())


def unlink(directory: Path) -> None:
    """Remove all transcripts."""
    for transcript in directory.glob("s/*/config/projects/*/*.jsonl"):
        transcript.unlink()
