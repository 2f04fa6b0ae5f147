"""Agents behind each rung of the ladder, on the real CLI: they work, and they get out of none."""

import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from support import mcp_server
from support.behind import WALLED, python, walls
from support.canary_search import content, files
from support.client_turns import ask, finished, of, started
from support.service import Running, key_for, serving, until

import samovar
from samovard.agent.isolation.walls import LEVELS, SESSION, Mechanism
from samovard.standin import script, text, tool

walled = pytest.mark.parametrize("mechanism", WALLED)
COLD = samovar.StartMode.COLD
CANARY = "canary-of-another-session"


def isolated(mechanism: Mechanism) -> dict[str, Any]:
    walls(mechanism)  # skips where it is not there
    return {"require": "none", "mechanism": mechanism.value}


def talker(port: int) -> str:
    """Return a shell's line that connects to a port, by several names of this machine."""
    hosts = ("127.0.0.1", "127.0.0.2", "localhost", "0.0.0.0")
    words = f'["reached", "tried"][bool(socket.socket().connect_ex((host, {port})))]'
    quoted = ", ".join(f'"{host}"' for host in hosts)
    return python(f"import socket; print(*[{words} for host in ({quoted})])")


async def bash(run: Running, line: str, session: str = "attacker") -> str:
    """Return what a shell of an agent prints, its errors too."""
    prompt = script(tool("Bash", {"command": f"({line}) 2>&1; true"}), text("done"))
    events = await ask(run, prompt, session=session, profile="tools")
    assert finished(events).result == "done"
    (result,) = of(samovar.ToolResult, events)
    return result.text


@walled
def test_the_cli_works_behind_walls(directory: Path, mechanism: Mechanism) -> None:
    """Its tools write and read files, its process stays warm, and its session is resumed."""

    async def story() -> None:
        async with serving(directory, isolation=isolated(mechanism)) as run:
            assert run.service.overview.server.isolation == LEVELS[mechanism].value
            write = tool("Write", {"file_path": "made", "content": "text"})
            first = await ask(run, script(write, text("a")), session="s", profile="tools")
            assert (finished(first).result, started(first).start_mode) == ("a", COLD)
            assert "text" in await bash(run, "cat made; git --version; pwd", "s")
            (process,) = run.service.pool
            os.kill(process.handle.pid, 9)
            await until(lambda: not len(run.service.pool))
            assert "text" in await bash(run, "cat made", "s")

    asyncio.run(story())


@walled
def test_an_agent_reads_nothing_of_others(directory: Path, mechanism: Mechanism) -> None:
    """Neither the service's files nor another session's words, by any path that it may know."""

    async def story() -> None:
        await key_for(directory, "acme")  # makes the pepper
        (directory / "samovard.toml").write_text(CANARY)
        async with serving(directory, isolation=isolated(mechanism)) as run:
            await bash(run, f"echo {CANARY} > file; echo {CANARY}", "victim")
            secrets = [path for path in files(directory) if path.is_file()]
            held = {path.name for path in secrets if CANARY.encode() in content(path)}
            assert {"samovard.toml", "file"} < held  # and a transcript
            assert {"samovar.db", "pepper", "key"} < {path.name for path in secrets}
            line = "; ".join(f"head -c 9 {path} > /dev/null && echo got {path}" for path in secrets)
            assert "got /" not in await bash(run, line)
            line = f"ls {directory} {directory}/s /home /root /var /run; cat /proc/*/environ"
            found = await bash(run, f"{line} | tr '\\0' '\\n'; grep -r {CANARY[:-1]}. /proc/*/cwd/")
            assert CANARY not in found
            assert "samovar.db" not in found
            assert "PYTEST" not in found

    asyncio.run(story())


@walled
def test_an_mcp_server_is_behind_its_agents_walls(directory: Path, mechanism: Mechanism) -> None:
    """It works, it sees what is made visible, and it reads nothing of the service's."""
    server = {"command": sys.executable, "args": ["-I", "-S", mcp_server.__file__]}
    options = {"model": "haiku", "allowed_tools": ["mcp__calc"], "mcp": {"calc": server}}
    visible = [Path(mcp_server.__file__).parent, Path(sys.prefix)]

    async def story() -> None:
        isolation = {**isolated(mechanism), "visible": visible}
        profiles = {"default": options}
        async with serving(directory, isolation=isolation, profiles=profiles) as run:
            for path, expected in ((directory / "key", "denied"), (visible[0], "reached")):
                call = tool("mcp__calc__reach", {"path": str(path)})
                (result,) = of(samovar.ToolResult, await ask(run, script(call, text("done"))))
                assert result.text == expected, path

    asyncio.run(story())


@walled
def test_an_agent_stops_nobody(directory: Path, mechanism: Mechanism) -> None:
    """Neither the service nor another agent gets its signals."""

    async def story() -> None:
        async with serving(directory, isolation=isolated(mechanism)) as run:
            await bash(run, "true", "victim")
            (victim,) = run.service.pool
            pids = {os.getpid(), victim.handle.pid}
            line = "; ".join(f"kill -CONT {pid} && echo told {pid}" for pid in pids)
            assert "told" not in await bash(run, f"{line}; echo tried")

    asyncio.run(story())


def test_an_agent_in_its_own_network_reaches_the_broker_alone(directory: Path) -> None:
    """Turns run cold, warm and resumed; nothing else of the machine's network answers."""

    async def story() -> None:
        async with serving(directory, isolation=isolated(Mechanism.BUBBLEWRAP)) as run:
            assert run.service.overview.server.network == "held"
            port = int(run.service.address.rpartition(":")[2])
            found = await bash(run, f"{talker(port)}; cat /proc/net/dev")
            assert "reached" not in found
            assert "tried" in found
            assert set(re.findall(r"(\w+):", found)) >= {"lo"}
            assert "eth0" not in found
            (process,) = run.service.pool
            os.kill(process.handle.pid, 9)
            await until(lambda: not len(run.service.pool))
            assert "ok" in await bash(run, "echo ok")

    asyncio.run(story())


def test_an_agent_with_an_open_network_has_the_machines(directory: Path) -> None:
    """What its profile says, and what the test above would miss."""
    options = {"model": "haiku", "tools": ["Bash"], "allowed_tools": ["Bash"], "network": "open"}

    async def story() -> None:
        isolation, profiles = isolated(Mechanism.BUBBLEWRAP), {"default": {}, "tools": options}
        async with serving(directory, isolation=isolation, profiles=profiles) as run:
            assert run.service.overview.server.network == "held"
            port = int(run.service.address.rpartition(":")[2])
            assert "reached" in await bash(run, talker(port))

    asyncio.run(story())


def test_landlock_lets_an_agent_connect_to_its_brokers_port_alone(directory: Path) -> None:
    """The service's own port is another one. That some of it is not held is told."""

    async def story() -> None:
        async with serving(directory, isolation=isolated(Mechanism.LANDLOCK)) as run:
            assert run.service.overview.server.network == "best"
            port = int(run.service.address.rpartition(":")[2])
            found = await bash(run, talker(port))
            assert "reached" not in found
            assert "tried" in found

    asyncio.run(story())


def test_sessions_of_a_profile_work_in_the_same_path(directory: Path) -> None:
    """The model's API caches prompts by their bytes, and the directory is in them."""

    async def story() -> None:
        async with serving(directory, isolation=isolated(Mechanism.BUBBLEWRAP)) as run:
            found = {await bash(run, "pwd", session) for session in "ab"}
            assert found == {f"{SESSION}/work"}

    asyncio.run(story())
