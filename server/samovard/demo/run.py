"""Runs the demonstration: service, stand-in and client in one process, the CLI for real.

Knows the service from outside only: it talks to it through the public client.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import samovar
from rich.console import Console
from samovard.agent import cli
from samovard.app import Service, running
from samovard.demo import spawned
from samovard.demo.report import Findings, Warm, show_spawned, show_table, show_turn
from samovard.settings import Settings
from samovard.standin import StandIn

IDLE = 5.0
QUESTIONS = {"Say OK1": "OK1", "Say OK2": "OK2", "Say OK3": "OK3"}
DUMMY_KEY = "sk-stand-in"  # the stand-in takes any


async def demonstrate(
    settings: Settings, console: Console, stand_in: StandIn | None, *, idle: float = IDLE
) -> Findings:
    """Holds one conversation through the service, then the same by spawning.

    With `stand_in` None the real API is asked, with the credential of `settings`.
    """
    findings = Findings(idle=idle)
    async with running(settings) as service:
        console.print(
            f"samovard on {service.address}, claude {service.agent_version}, "
            f"{'a stand-in for' if stand_in else 'the real'} Messages API"
        )
        console.print(f"\nOne keep-alive process, {idle:g} s of idle between the turns:")
        await _converse(service, findings, console)
        findings.whole_conversation = stand_in is None or _saw_everything(stand_in)
        console.print("\nThe same by spawning a process for each message:")
        await _spawn(settings, service, findings, console)
    console.print()
    show_table(console, findings)
    return findings


async def _converse(service: Service, findings: Findings, console: Console) -> None:
    async with samovar.AsyncClient(service.address) as client:
        for number, (question, expected) in enumerate(QUESTIONS.items()):
            if number:
                with console.status(f"idle for {findings.idle:g} s"):
                    await asyncio.sleep(findings.idle)
            turn = await _turn(client, question, expected)
            findings.warm.append(turn)
            show_turn(console, turn)


async def _turn(client: samovar.AsyncClient, question: str, expected: str) -> Warm:
    begin = time.monotonic()
    first, pid, mode, answer = 0.0, 0, "", ""
    async for event in client.send(question):
        first = first or time.monotonic() - begin
        if isinstance(event, samovar.TurnStarted):
            pid, mode = event.pid, event.start_mode.name.lower()
        if isinstance(event, samovar.TurnFinished):
            answer = event.result
    return Warm(question, answer, expected, pid, mode, first, time.monotonic() - begin)


def _saw_everything(stand_in: StandIn) -> bool:
    """Tells whether the last turn's request held every question before it."""
    seen = stand_in.requests[-1].texts
    return all(any(question in text for text in seen) for question in QUESTIONS)


async def _spawn(
    settings: Settings, service: Service, findings: Findings, console: Console
) -> None:
    binary = cli.find(settings.agent.cli, "")
    key = await service.credential()
    with tempfile.TemporaryDirectory(prefix="samovar-") as directory:
        for question in QUESTIONS:
            answer = await spawned.ask(
                binary.path, question, Path(directory), settings.credentials.upstream, key
            )
            findings.spawned.append((answer.answer, answer.seconds))
            show_spawned(console, question, answer.answer, answer.seconds)


@asynccontextmanager
async def on_stand_in() -> AsyncIterator[tuple[Settings, StandIn]]:
    """Gives settings for a service on free ports and a stand-in, all of it temporary."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="samovar-"))
        stand_in = await stack.enter_async_context(StandIn())
        key = Path(directory) / "key"
        key.touch(mode=0o600)
        key.write_text(DUMMY_KEY)
        yield settings_for(Path(directory), stand_in, key), stand_in


def settings_for(directory: Path, stand_in: StandIn, key: Path) -> Settings:
    """Makes the settings of a service on a stand-in."""
    return Settings.model_validate(
        {
            "server": {"listen": "127.0.0.1:0", "drain_wait": 0.0},
            "state": {"directory": directory},
            "credentials": {"provider": "file", "path": key, "upstream": stand_in.url},
        }
    )
