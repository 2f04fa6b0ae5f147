"""Promises about agents that do not get on: each turn ends, and the session goes on."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from structlog.testing import capture_logs
from support.service import Running, serving

import samovar
from samovard.agent import child
from samovard.standin import script, stall, text

LIMITS = {"model": "haiku", "first_timeout": "2 s", "stream_timeout": "2 s"}

STUCK = {
    "is silent": v.hang(),
    "talks and does not get on": v.chatty_hang(),
    "writes half a line": v.partial_line("hang"),
    "is stopped": v.stop(),
    "spins": v.spin(),
    "closes its output": v.close_stdout_stay(),
}


async def lost(run: Running, prompt: str) -> samovar.TurnLost:
    with pytest.raises(samovar.TurnLost) as error:
        await run.client.ask(prompt)
    return error.value


@pytest.mark.parametrize("how", STUCK)
def test_a_stuck_agent_ends_the_turn_and_is_replaced(
    directory: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn is TURN_LOST (stalled) at its limit; the next one resumes on another process."""
    monkeypatch.setattr(child, "EOF_TIMEOUT_SUSPECT", 0.2)
    monkeypatch.setattr(child, "TERM_TIMEOUT", 0.2)

    async def story() -> None:
        async with serving(directory, fake=True, profiles={"default": LIMITS}) as run:
            before = (await run.client.ask("Say canary")).started
            with capture_logs() as log:
                begin = time.monotonic()
                error = await lost(run, fake(v.text("half"), STUCK[how]))
            assert time.monotonic() - begin >= 2.0
            assert (error.cause, error.prompt_written) == ("stalled", True)
            assert error.retry_delay is None
            (told,) = (line for line in log if line["event"] == "turn.stalled")
            assert told["state"][0] in "RSTt"
            assert told["wait_channel"]
            answer = await run.client.ask(fake(v.history()))
            assert answer.started.start_mode is samovar.StartMode.RESUMED
            assert answer.started.pid != before.pid
            assert "Say canary" in answer.text

    asyncio.run(story())


def test_an_agent_that_waits_to_ask_again_has_its_time(directory: Path) -> None:
    """The delay of a retry comes on top of the limit."""

    async def story() -> None:
        async with serving(directory, fake=True, profiles={"default": LIMITS}) as run:
            prompt = fake(v.api_retry(1, ms=2500), v.text("at last"))
            assert (await run.client.ask(prompt)).text == "at last"

    asyncio.run(story())


@pytest.mark.parametrize("partial", [True, False])
def test_whatever_is_made_is_progress(directory: Path, partial: bool) -> None:
    """Deltas that the caller did not ask for count as well: a long answer is not stalled."""

    async def story() -> None:
        async with serving(directory, fake=True, profiles={"default": LIMITS}) as run:
            answer = await run.client.ask(fake(v.drip(30, ms=100)), partial=partial)
            assert answer.outcome is samovar.Outcome.COMPLETED

    asyncio.run(story())


def test_a_tool_may_take_longer_than_the_model(directory: Path) -> None:
    """While a tool runs its own limit counts, and no other."""

    async def story() -> None:
        limits = LIMITS | {"stream_timeout": "300 ms", "tool_timeout": "1500 ms"}
        async with serving(directory, fake=True, profiles={"default": limits}) as run:
            begin = time.monotonic()
            assert (await lost(run, fake(v.tool(hang=True)))).cause == "stalled"
            assert time.monotonic() - begin >= 1.5

    asyncio.run(story())


def test_the_real_agent_is_given_up_when_it_is_stopped(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process under SIGSTOP in mid-turn is lost, killed and replaced."""
    monkeypatch.setattr(child, "TERM_TIMEOUT", 0.2)

    async def story() -> None:
        limits = LIMITS | {"first_timeout": "20 s"}
        async with serving(directory, profiles={"default": limits}) as run:
            pid = (await run.client.ask("Say canary")).started.pid
            with pytest.raises(samovar.TurnLost) as error:
                prompt = script([text("some words", deltas=2), stall(4)])
                async with run.client.send(prompt, partial=True) as turn:
                    async for event in turn:
                        if isinstance(event, samovar.TextDelta):
                            os.kill(pid, signal.SIGSTOP)
            assert error.value.cause == "stalled"
            after = await run.client.ask("Say on")
            assert after.started.start_mode is samovar.StartMode.RESUMED
            assert not Path(f"/proc/{pid}").exists()
            assert any("Say canary" in words for words in run.asked()[-1])

    asyncio.run(story())


def test_the_real_agent_is_given_up_when_its_model_falls_silent(directory: Path) -> None:
    """A stream of the API that stalls ends the turn long before the CLI notices it."""

    async def story() -> None:
        limits = LIMITS | {"first_timeout": "20 s"}
        async with serving(directory, profiles={"default": limits}) as run:
            error = await lost(run, script([text("some words", deltas=9), stall(4)]))
            assert error.cause == "stalled"
            after = await run.client.ask("Say on")
            assert after.started.start_mode is samovar.StartMode.RESUMED

    asyncio.run(story())
