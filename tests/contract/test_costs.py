"""Promises about what a turn may cost, on the real CLI and by its own prices."""

import asyncio
from pathlib import Path
from typing import Any

from support.client_turns import ask, finished, of, started
from support.service import serving

import samovar
from samovard.standin import script, text, tool, usage


def profile(**bounds: Any) -> dict[str, Any]:
    tools = ["Bash", "Task"]
    return {"default": {"model": "haiku", "tools": tools, "allowed_tools": tools} | bounds}


def steps(directory: Path, count: int, tokens: int = 20_000) -> str:
    """Makes a prompt of so many expensive steps, each of which leaves a line in a file."""
    mark = directory / "steps"
    return script(
        *(
            [
                tool("Bash", {"command": f"echo {n} >> {mark}"}),
                usage(input_tokens=tokens),
            ]
            for n in range(1, count + 1)
        ),
        text("end"),
    )


def test_a_turn_ends_when_it_has_cost_its_bound(directory: Path) -> None:
    """`max_cost_usd` interrupts a turn as soon as an answer of the model passed it: far from
    all of its steps run. What earlier turns cost does not count, and the process serves on."""

    async def story() -> None:
        async with serving(directory, profiles=profile(max_cost_usd=0.007)) as run:
            first = await ask(run, "Say cheap")
            limited = await ask(run, steps(directory, 12))
            last = finished(limited)
            assert last.outcome is samovar.Outcome.LIMIT_REACHED
            assert 0.007 <= last.usage.cost_usd
            assert last.agent_steps < 12
            (notice,) = of(samovar.Notice, limited)
            assert notice.code == "limit-reached"
            after = await ask(run, "Say on")
            assert finished(after).result == "on"
            assert started(after).pid == started(first).pid

    asyncio.run(story())


def test_a_turn_below_its_bound_is_not_disturbed(directory: Path) -> None:
    """Cheap turns add up to more than the bound and none is stopped."""

    async def story() -> None:
        async with serving(directory, profiles=profile(max_cost_usd=0.005)) as run:
            spent = 0.0
            for _ in range(4):
                last = finished(await ask(run, steps(directory, 1)))
                assert last.outcome is samovar.Outcome.COMPLETED
                spent += last.usage.cost_usd
            assert spent > 0.005

    asyncio.run(story())


def test_what_sub_agents_spend_counts(directory: Path) -> None:
    """A cheap main agent whose sub-agent is expensive is stopped as well."""

    async def story() -> None:
        async with serving(directory, profiles=profile(max_cost_usd=0.007)) as run:
            inner = steps(directory, 12)
            call = {"description": "d", "prompt": inner, "subagent_type": "general-purpose"}
            limited = await ask(run, script(tool("Agent", call), text("end")))
            assert finished(limited).outcome is samovar.Outcome.LIMIT_REACHED
            assert len((directory / "steps").read_text().split()) < 12

    asyncio.run(story())
