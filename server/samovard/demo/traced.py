"""The same conversation again, traced: the service's spans and the agent's own.

Knows the service from the outside only, like the operator of a collector.
"""

from rich.console import Console

import samovar
from samovard.app import running
from samovard.demo import terminal
from samovard.demo.receiver import Receiver
from samovard.demo.waterfall import INTERACTION, Span, Waterfall, waterfall
from samovard.settings import Settings
from samovard.standin import delay, drip, script, tool
from samovard.telemetry import names
from samovard.telemetry.facts import SEND

#: Both the agent and the service export every second.
ARRIVES_WITHIN = 10.0
TURN_DEADLINE = 120.0
ASKED = (("Say OK1", "Say OK1"), ("Say OK2", "Say OK2"))
WITH_TOOL = (
    "A tool that takes 100 ms, then eight words",
    script(tool("Bash", {"command": "sleep 0.1"}), [delay(0.08), drip(8, 0.01, "OK3 ")]),
)


async def converse(settings: Settings, console: Console, *, live: bool) -> list[Waterfall]:
    """Hold a conversation through a service that exports to this process, and show its turns."""
    console.print("\nOnce more, traced: the service's own spans and the agent's, turn by turn")
    async with Receiver() as receiver:
        asked = []
        async with running(_exporting(settings, receiver.url, live=live)) as service:
            await service.maintenance.settled()
            async with samovar.AsyncClient(service.address, deadline=TURN_DEADLINE) as client:
                for title, prompt in ASKED if live else (*ASKED, WITH_TOOL):
                    answer = await client.ask(prompt, session="traced")
                    asked.append((title, answer.started))
            turns = [started.turn_id for _, started in asked]
            with console.status("waiting for the spans"):
                await receiver.until(lambda: _complete(receiver.spans, turns), ARRIVES_WITHIN)
    calls = {str(span.attributes.get(names.TURN_ID)): span for span in _calls(receiver.spans)}
    drawn = [
        waterfall(title, started.pid, calls[started.turn_id], receiver.spans)
        for title, started in asked
        if started.turn_id in calls
    ]
    for one in drawn:
        terminal.show(console, one)
    if len(drawn) < len(asked) or not all(one.whole for one in drawn):
        console.print(f"\n[yellow]not every span has arrived in {ARRIVES_WITHIN:g} s[/]")
    return drawn


def _exporting(settings: Settings, url: str, *, live: bool) -> Settings:
    """Return settings that export everything to one place; a real model then gets no tools."""
    telemetry = settings.telemetry.model_copy(
        update={
            "endpoint": url,
            "protocol": "http/protobuf",
            "agent_endpoint": url,
            "sample_ratio": 1.0,
        }
    )
    given = {} if live else {"tools": ("Bash",), "allowed_tools": ("Bash",)}
    profiles = {
        name: profile.model_copy(update=given) for name, profile in settings.profiles.items()
    }
    return settings.model_copy(update={"telemetry": telemetry, "profiles": profiles})


def _calls(spans: list[Span]) -> list[Span]:
    return [span for span in spans if span.name == SEND]


def _complete(spans: list[Span], turns: list[str]) -> bool:
    """True if each turn's call and the agent's own account of it have arrived."""
    calls = {str(call.attributes.get(names.TURN_ID)): call.trace_id for call in _calls(spans)}
    told = {span.trace_id for span in spans if span.name == INTERACTION}
    return all(calls.get(turn) in told for turn in turns)
