"""The way out for tools, on the real CLI: to the hosts of their profile and nowhere else."""

import asyncio
import json
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.behind import walls
from support.client_turns import ask, finished, of
from support.service import Running, serving

import samovar
from samovard.agent.isolation.walls import Mechanism
from samovard.standin import script, text, tool

LISTED, OTHER = "git.test", "evil.test"


@contextmanager
def repository(directory: Path) -> Iterator[int]:
    """Serve a repository of git over HTTP; yield the port."""
    directory.mkdir()
    work, bare = directory / "work", directory / "www" / "repo.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@a.test", "-c", "init.defaultBranch=main"]
    for command in (
        [*git, "init", "-q", str(work)],
        [*git, "-C", str(work), "commit", "-q", "--allow-empty", "-m", "the only commit"],
        [*git, "clone", "-q", "--bare", str(work), str(bare)],
        [*git, "-C", str(bare), "update-server-info"],
    ):
        subprocess.run(command, check=True, capture_output=True, env={"PATH": "/usr/bin:/bin"})

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    handler = partial(Handler, directory=str(bare.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def operators_proxy(port: int) -> AsyncIterator[tuple[str, list[str]]]:
    """Lead all tunnels to one port; yield the URL and the hosts that were asked for."""
    asked: list[str] = []
    tasks: set[asyncio.Task[None]] = set()

    async def flow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def lead(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.split(" ")[1])
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        far_reader, far = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(flow(reader, far), flow(far_reader, writer))
        finally:
            far.transport.abort()
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(lead, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def bash(run: Running, line: str) -> str:
    """Return what a shell of an agent prints, its errors too."""
    prompt = script(tool("Bash", {"command": f"({line}) 2>&1; true"}), text("done"))
    events = await ask(run, prompt, session="s", profile="tools")
    assert finished(events).result == "done"
    (result,) = of(samovar.ToolResult, events)
    return result.text


def test_tools_reach_the_hosts_of_their_profile_alone(directory: Path) -> None:
    """By the proxy, from a network of their own; each connection has its line."""
    walls(Mechanism.BUBBLEWRAP)
    options = {"model": "haiku", "tools": ["Bash"], "allowed_tools": ["Bash"]}
    options |= {"network": "hosts", "hosts": [LISTED]}

    async def story(port: int) -> None:
        async with operators_proxy(port) as (proxy, asked):
            sections: dict[str, Any] = {
                "isolation": {"mechanism": "bubblewrap"},
                "profiles": {"default": {}, "tools": options},
                "credentials": {"proxy": proxy, "no_proxy": ["127.0.0.1"]},
            }
            async with serving(directory, **sections) as run:
                assert run.service.overview.server.network == "held"
                line = f"git clone -q http://{LISTED}/repo.git a && git -C a log --format=%s"
                assert await bash(run, line) == "the only commit"
                said = await bash(run, f"git clone -q http://{OTHER}/repo.git b")
                assert "403" in said
                direct = f"git -c http.proxy= clone -q http://127.0.0.1:{port}/repo.git c"
                assert "onnect" in await bash(run, direct)
                assert set(asked) == {f"{LISTED}:80"}

    with repository(directory / "git") as port:
        asyncio.run(story(port))
    lines = map(json.loads, (directory / "audit.jsonl").read_text().splitlines())
    found = [line for line in lines if line["event"] == "connection"]
    # Git asks without its password first.
    verdicts = {(line["host"], line["verdict"]) for line in found}
    assert verdicts - {(host, "unauthenticated") for host in (LISTED, OTHER)} == {
        (LISTED, "passed"),
        (OTHER, "not_listed"),
    }
    assert {(line["tenant"], line["session"], line["profile"]) for line in found} == {
        ("local", "s", "tools")
    }
    assert any(line["received"] > 0 for line in found)
