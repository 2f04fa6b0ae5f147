"""Asks, interrupts and kills in any order, more sessions than slots, on the real CLI."""

import asyncio
import os
import random
import signal
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from support.service import Running, serving, until

import samovar
from samovard.standin import delay, script, text

#: A model that says nothing until the turn is interrupted.
SILENT = script([delay(300.0), text("too late")])
PATIENT = 240.0  # seconds, for a machine that is busy
SESSIONS, FATES = 2, ("stop and kill", "ask", "stop and kill")


async def stopped(run: Running, session: str, after: float) -> int:
    """Run a turn that is interrupted after some time, and return its process."""
    pid = 0
    async with run.client.send(SILENT, session=session, deadline=PATIENT) as turn:
        async for event in turn:
            if isinstance(event, samovar.TurnStarted):
                pid = event.pid
                await asyncio.sleep(after)
                await run.client.interrupt(turn.turn_id, session)
    return pid


async def lives(run: Running, session: str, fates: list[tuple[str, float]]) -> None:
    """Meet each fate, and answer in the end."""
    for fate, after in fates:
        if fate == "ask":
            await answers(run, session)
            continue
        pid = await stopped(run, session, after)
        if fate == "stop and kill":
            with suppress(ProcessLookupError):  # it was evicted
                os.kill(pid, signal.SIGKILL)
            await until(partial(gone, run, pid), PATIENT)
    await answers(run, session)


def gone(run: Running, pid: int) -> bool:
    return all(process.handle.pid != pid for process in run.service.pool)


async def answers(run: Running, session: str) -> None:
    answer = await run.client.ask("Say on", session=session, deadline=PATIENT)
    assert answer.text == "on"


@pytest.mark.timeout(300)
def test_no_mix_of_asks_interrupts_and_kills_loses_a_session(directory: Path) -> None:
    """Each turn that is asked is answered, whatever came before it in its session."""
    drawn = random.Random(5)

    async def story() -> None:
        async with serving(directory, pool={"slots": 1, "max_wait": "5 min"}) as run:
            async with asyncio.TaskGroup() as group:
                for number in range(SESSIONS):
                    fates = [(fate, drawn.choice([0.0, 0.01])) for fate in FATES]
                    group.create_task(lives(run, f"s{number}", fates))

    asyncio.run(story())
