"""MCP servers of a profile, on the real CLI: their tools, their lives, and what faults cost."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support import mcp_server
from support.client_turns import ask, finished, of, started
from support.mcp_http import answering
from support.permission_turns import until_asked
from support.service import Running, serving, until

import samovar
from samovard.core.errors import Misconfigured
from samovard.standin import script, text, tool

SERVER = mcp_server.__file__
ALLOWED = [f"mcp__calc__{name}" for name in mcp_server.NAMES]

Story = Callable[[Running], Coroutine[Any, Any, None]]


def program(*arguments: str, **fields: Any) -> dict[str, Any]:
    return {"command": sys.executable, "args": ["-I", "-S", SERVER, *arguments], **fields}


def told(directory: Path, story: Story, **profile: Any) -> None:
    """Run a story of a service whose default profile has servers."""
    options = {"allowed_tools": ALLOWED, "mcp": {"calc": program()}, "mcp_timeout": 60} | profile

    async def tell() -> None:
        async with serving(directory, profiles={"default": options}) as run:
            await story(run)

    asyncio.run(tell())


async def called(run: Running, name: str, given: dict[str, Any] | None = None) -> str:
    """Call a tool of the server in a turn, and return what it said."""
    events = await ask(run, script([tool(f"mcp__calc__{name}", given or {})], text("done")))
    assert finished(events).outcome is samovar.Outcome.COMPLETED
    (result,) = of(samovar.ToolResult, events)
    return result.text


def runs(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_server_lives_as_long_as_its_agent(directory: Path) -> None:
    """Its tools answer, each turn has the same process of it, and with the session it is gone,
    with a daemon that it has started in a session of its own."""

    async def story(run: Running) -> None:
        assert await called(run, "add", {"a": 2, "b": 40}) == "42"
        pid, daemon = int(await called(run, "pid")), int(await called(run, "daemon"))
        assert int(await called(run, "pid")) == pid
        assert runs(daemon)
        assert await run.client.close_session("default")
        await until(lambda: not runs(pid) and not runs(daemon))

    told(directory, story)


def test_a_server_has_its_own_variables_and_few_of_the_agents(directory: Path) -> None:
    """Nothing of the model's API is among them."""

    async def story(run: Running) -> None:
        variables = json.loads(await called(run, "variables"))
        assert variables["GREETING"] == "hello"
        assert not [name for name in variables if "ANTHROPIC" in name or "API_KEY" in name]

    told(directory, story, mcp={"calc": program(env={"GREETING": "hello"})})


def test_a_tool_of_a_server_needs_permission_as_any_other(directory: Path) -> None:
    """It is denied unless it is allowed, or asked about where callers are asked."""
    add = script([tool("mcp__calc__add", {"a": 1, "b": 1})], text("done"))

    async def denied(run: Running) -> None:
        (result,) = of(samovar.ToolResult, await ask(run, add))
        assert result.is_error

    async def asked(run: Running) -> None:
        async with run.client.send(add) as turn:
            _, (request,) = await until_asked(turn)
            assert request.tool_name == "mcp__calc__add"
            await run.client.allow(request.permission_id)
            (result,) = of(samovar.ToolResult, [event async for event in turn])
            assert (result.text, result.is_error) == ("2", False)

    told(directory, denied, allowed_tools=[])
    told(directory, asked, allowed_tools=[], permission_policy="ask")


def test_a_server_that_is_missing_costs_its_tools_alone(directory: Path) -> None:
    """The turn is served, and a notice names what it has to do without."""
    program_of_it = directory / "server"

    async def story(run: Running) -> None:
        program_of_it.unlink()
        events = await ask(run, "Say hello")
        assert finished(events).result == "hello"
        (notice,) = of(samovar.Notice, events)
        assert notice.code == "mcp-server-missing"
        assert "gone" in notice.message
        assert await called(run, "add", {"a": 1, "b": 2}) == "3"

    program_of_it.symlink_to("/bin/cat")
    told(directory, story, mcp={"calc": program(), "gone": {"command": str(program_of_it)}})


def test_a_server_that_never_answers_costs_a_bounded_wait(directory: Path) -> None:
    """Of `mcp_timeout`, where the CLI's own is 30 s; the turn is served then."""

    async def story(run: Running) -> None:
        events = await ask(run, "Say hello")
        assert finished(events).result == "hello"
        (notice,) = of(samovar.Notice, events)
        assert (notice.code, "slow" in notice.message) == ("mcp-server-missing", True)

    told(directory, story, mcp={"slow": program("hang")}, mcp_timeout=1)


def test_a_server_that_ends_in_a_call_is_started_again(directory: Path) -> None:
    """The call fails, the turn goes on, and the next call has a server."""

    async def story(run: Running) -> None:
        steps = script([tool("mcp__calc__die", {})], [tool("mcp__calc__pid", {})], text("done"))
        events = await ask(run, steps)
        first, second = of(samovar.ToolResult, events)
        assert first.is_error
        assert runs(int(second.text))
        assert finished(events).result == "done"
        assert started(events).pid != os.getpid()

    told(directory, story)


def test_a_call_takes_no_longer_than_its_server_may(directory: Path) -> None:
    """It fails then, and the turn goes on."""

    async def story(run: Running) -> None:
        events = await ask(run, script([tool("mcp__calc__hang", {})], text("done")))
        (result,) = of(samovar.ToolResult, events)
        assert result.is_error
        assert finished(events).result == "done"

    told(directory, story, mcp={"calc": program(timeout=1)})


def test_a_server_of_http_is_asked_with_its_headers(directory: Path) -> None:
    """In each request; its tools answer as those of a program do."""
    with answering("x-team") as (url, shown):

        async def story(run: Running) -> None:
            assert await called(run, "add", {"a": 20, "b": 3}) == "23"
            assert set(shown) == {"blue"}

        asked = {"calc": {"url": url, "headers": {"x-team": "blue"}}}
        told(directory, story, mcp=asked, network="open")


def test_a_question_of_a_server_is_declined(directory: Path) -> None:
    """No caller is asked, and the tool need not wait for one."""

    async def story(run: Running) -> None:
        assert await called(run, "ask") == "decline"

    told(directory, story)


def test_a_program_that_is_not_there_ends_the_start(directory: Path) -> None:
    """By the name of its setting."""

    async def story(run: Running) -> None:
        raise AssertionError("it serves")

    with pytest.raises(Misconfigured, match=r"profiles\.default\.mcp\.calc\.command: .*no-such"):
        told(directory, story, mcp={"calc": {"command": "no-such-program"}})


def test_a_secret_that_is_not_there_ends_the_start(directory: Path) -> None:
    """By the name of its setting."""

    async def story(run: Running) -> None:
        raise AssertionError("it serves")

    secret = {"authorization": directory / "none"}
    with pytest.raises(
        Misconfigured, match=r"profiles\.default\.mcp\.calc\.secret_headers\.authorization: "
    ):
        mcp = {"calc": {"url": "https://mcp.example", "secret_headers": secret}}
        told(directory, story, mcp=mcp)
