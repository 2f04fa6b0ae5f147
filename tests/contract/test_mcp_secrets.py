"""Secret headers of MCP servers, on the real CLI: servers have them and agents do not."""

import asyncio
from pathlib import Path
from typing import Any

from support.behind import walls
from support.canary_search import places, tree
from support.client_turns import ask, finished, of
from support.mcp_http import answering
from support.service import Running, serving, until

import samovar
from samovard.agent.isolation.walls import Mechanism
from samovard.standin import script, text, tool

CANARY = "canary-ticket-7d0e51"
ALLOWED = ["Bash", "mcp__calc__add"]
ADD = script([tool("mcp__calc__add", {"a": 2, "b": 40})], text("done"))


def planted(directory: Path) -> Path:
    (directory / "ticket").touch(mode=0o600)
    (directory / "ticket").write_text(f"Bearer {CANARY}\n")
    return directory / "ticket"


async def added(run: Running) -> str:
    """Call a tool of the server in a turn, and return what it said."""
    events = await ask(run, ADD, session="s", profile="tools")
    assert finished(events).outcome is samovar.Outcome.COMPLETED
    (result,) = of(samovar.ToolResult, events)
    return result.text


async def searched(run: Running, directory: Path) -> set[str]:
    """Return where the secret is after calls of the server, while a tool runs."""
    gate = directory / "gate"
    waits = script(tool("Bash", {"command": f"while ! test -e {gate}; do sleep 0.05; done"}))
    (process,) = run.service.pool
    turn = asyncio.create_task(ask(run, waits, session="s", profile="tools"))
    try:
        await until(lambda: any(holds(each, str(gate)) for each in tree(process.handle.pid)))
        return await asyncio.to_thread(places, process.handle.pid, directory / "s", CANARY)
    finally:
        gate.touch()
        await turn


def holds(pid: int, word: str) -> bool:
    try:
        return word in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it ended meanwhile
        return False


def search(directory: Path, **server: Any) -> set[str]:
    async def story() -> set[str]:
        with answering("authorization") as (url, shown):
            options: dict[str, Any] = {"model": "haiku", "tools": ["Bash"]}
            options |= {"allowed_tools": ALLOWED, "mcp": {"calc": {"url": url, **server}}}
            options["mcp_timeout"] = 60
            if "headers" in server:
                options["network"] = "open"
            async with serving(directory, profiles={"default": {}, "tools": options}) as run:
                assert await added(run) == "42"
                assert set(shown) == {f"Bearer {CANARY}"}
                return await searched(run, directory)

    return asyncio.run(story())


def test_a_secret_header_is_nowhere_at_the_agent(directory: Path) -> None:
    """Not in its environment, arguments, descriptors, files and memory, nor in its tools'; the
    server has it with each request."""
    assert search(directory, secret_headers={"Authorization": planted(directory)}) == set()


def test_the_search_finds_a_header_that_is_no_secret(directory: Path) -> None:
    """A plain one is in a file that the agent can read, and in its memory."""
    found = search(directory, headers={"Authorization": f"Bearer {CANARY}"})
    assert found >= {"file", "memory"}


def test_a_secret_header_reaches_its_server_from_an_agent_without_a_network(
    directory: Path,
) -> None:
    """By way of the broker, and one that is replaced is sent by the process that runs."""
    walls(Mechanism.BUBBLEWRAP)  # skips where it is not there

    async def story() -> None:
        with answering("authorization") as (url, shown):
            server = {"url": url, "secret_headers": {"Authorization": planted(directory)}}
            options = {"model": "haiku", "allowed_tools": ALLOWED, "mcp": {"calc": server}}
            profiles = {"default": {}, "tools": {**options, "mcp_timeout": 60}}
            isolation = {"require": "none", "mechanism": "bubblewrap"}
            async with serving(directory, isolation=isolation, profiles=profiles) as run:
                assert await added(run) == "42"
                (process,) = run.service.pool
                (directory / "ticket").write_text("Bearer renewed")
                assert await added(run) == "42"
                assert [each.handle.pid for each in run.service.pool] == [process.handle.pid]
                assert {f"Bearer {CANARY}", "Bearer renewed"} == set(shown)

    asyncio.run(story())
