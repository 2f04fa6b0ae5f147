"""Run the demonstration: service, stand-in and client in one process, with the real CLI.

Knows the service from the outside only: it uses the public client.
"""

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path

from rich.console import Console

import samovar
from samovard.agent import root
from samovard.app import Service, running
from samovard.demo import spawned
from samovard.demo.report import Findings, Warm, show_spawned, show_table, show_turn
from samovard.demo.waterfall import Waterfall
from samovard.serving import on_stand_in
from samovard.settings import Settings, given, named_cli
from samovard.standin import StandIn
from samovard.telemetry import log

QUESTIONS = {"Say OK1": "OK1", "Say OK2": "OK2", "Say OK3": "OK3"}
TURN_DEADLINE = 120.0
BUSY, WARM_UP = 14, 3  # turns sent directly one after another, and how many of them do not count


async def show(
    live: Settings | None, console: Console, *, idle: float, trace: bool = False
) -> Findings:
    """Hold one conversation through the service, then the same by spawning processes.

    Everything is temporary, on free ports. `live` are settings with a credential for the real API;
    with None a stand-in answers. `trace` repeats the conversation with tracing, whose cost is then
    in no figure.
    """
    log.configure("auto", "warning", sys.stderr)
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(root.temporary())
        settings = temporary(live, directory)
        stand_in = None
        if live is None:
            stand_in = await stack.enter_async_context(StandIn())
            settings = on_stand_in(settings, stand_in)
        findings = Findings(idle=idle)
        async with AsyncExitStack() as served:
            with console.status("starting, and testing the CLI"):
                service = await served.enter_async_context(running(settings))
                await service.maintenance.settled()
            _introduce(service, stand_in, console)
            await _converse(service, findings, console)
            findings.whole_conversation = stand_in is None or _saw_everything(stand_in)
            await _spawn(service, findings, directory, console)
        show_table(console, findings)
        if trace:
            findings.traced = await _traced(settings, console, live=live is not None)
        return findings


async def _traced(settings: Settings, console: Console, *, live: bool) -> list[Waterfall]:
    from samovard.demo import traced  # Imported here: only a traced demonstration needs it.

    return await traced.converse(settings, console, live=live)


def temporary(live: Settings | None, directory: Path) -> Settings:
    """Return settings that touch no state of the user, and read none of it unless `live`."""
    cli = live.agent.cli if live else named_cli()
    fresh = given(
        {
            "server": {"listen": "127.0.0.1:0"},
            "state": {"directory": directory},
            "auth": {"methods": ["none"]},
            "agent": {"cli": cli},
        }
    )
    if live is None:
        return fresh
    return fresh.model_copy(update={"profiles": live.profiles, "credentials": live.credentials})


def _introduce(service: Service, stand_in: StandIn | None, console: Console) -> None:
    what = "a stand-in for the Messages API (no model)" if stand_in else "the real Messages API"
    console.print(
        f"samovard on {service.address}, claude {service.agent.version}, {what}",
        highlight=False,
        soft_wrap=True,
    )


async def _converse(service: Service, findings: Findings, console: Console) -> None:
    console.print(f"\nThree turns through samovard, {findings.idle:g} s of idle between them:")
    async with samovar.AsyncClient(service.address, deadline=TURN_DEADLINE) as client:
        for number, (question, expected) in enumerate(QUESTIONS.items()):
            if number:
                await _idle(findings.idle, console)
            turn = await _turn(client, question, expected)
            findings.warm.append(turn)
            show_turn(console, turn)
        # In another session, so that the conversation above is shown alone.
        for _ in range(BUSY):
            busy = await _turn(client, "Say OK", "OK", session="busy")
            findings.busy.append(busy.total)
        del findings.busy[:WARM_UP]


async def _idle(seconds: float, console: Console) -> None:
    with console.status(f"idle for {seconds:g} s"):
        await asyncio.sleep(seconds)


async def _turn(
    client: samovar.AsyncClient, question: str, expected: str, session: str | None = None
) -> Warm:
    begin = time.monotonic()
    first, pid, mode, answer = 0.0, 0, "", ""
    async with client.send(question, session=session) as turn:
        async for event in turn:
            first = first or time.monotonic() - begin
            if isinstance(event, samovar.TurnStarted):
                pid, mode = event.pid, event.start_mode.name.lower()
            if isinstance(event, samovar.TurnFinished):
                answer = event.result
    return Warm(question, answer, expected, pid, mode, first, time.monotonic() - begin)


def _saw_everything(stand_in: StandIn) -> bool:
    """True if the last turn's request contained every earlier question."""
    third = list(QUESTIONS)[-1]
    seen = next(r.texts for r in reversed(stand_in.requests) if any(third in t for t in r.texts))
    return all(any(question in text for text in seen) for question in QUESTIONS)


async def _spawn(service: Service, findings: Findings, directory: Path, console: Console) -> None:
    console.print("\nThe same, idle time and all, by spawning the CLI for each message:")
    provider = service.agent.provider
    assert provider is not None
    credential = await provider.get("local")
    home = directory / "spawned"
    home.mkdir()
    for question in QUESTIONS:
        await _idle(findings.idle, console)
        answer = await spawned.ask(
            service.agent.cli.path,
            question,
            home,
            service.settings.credentials.upstream,
            credential.value.reveal(),
        )
        findings.spawned.append((answer.answer, answer.seconds))
        show_spawned(console, question, answer.answer, answer.seconds)
    console.print()
