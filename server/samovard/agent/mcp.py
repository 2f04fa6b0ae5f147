"""MCP servers of a profile: the file that tells the CLI of them.

Knows the CLI's form of that file. Knows nothing of what a server does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samovard.agent.process_tree import MARKER

#: The file, in the agent's own directory `config`.
FILE = "mcp.json"
#: The part of the broker's paths under which servers are found by name.
PART = "mcp"


@dataclass(frozen=True, slots=True)
class McpServer:
    """A program, `command` with `args` and `env`, or an HTTP server, `url` with `headers`.

    `timeout` is how many seconds a call of one of its tools may take, None for any time.
    `secret_headers` are files with the values of headers that the agent must not have.
    """

    command: str = ""
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    secret_headers: Mapping[str, Path] = field(default_factory=dict)
    timeout: float | None = None

    @property
    def brokered(self) -> bool:
        """True if the agent reaches it through the broker alone."""
        return bool(self.secret_headers)


def config(servers: Mapping[str, McpServer], broker: str = "") -> bytes:
    """Return the content of the file; `broker` is the agent's address there."""
    entries = {name: _entry(server, f"{broker}/{PART}/{name}") for name, server in servers.items()}
    return json.dumps({"mcpServers": entries}).encode()


def _entry(server: McpServer, brokered: str) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    if server.brokered:
        entry = {"type": "http", "url": brokered, "headers": {}}
    elif server.url:
        entry = {"type": "http", "url": server.url, "headers": dict(server.headers)}
    else:
        # The CLI gives its servers few of its own variables. With the marker, what a server leaves
        # behind is found like everything else of the tree.
        env = {**server.env, MARKER: f"${{{MARKER}}}"}
        entry = {"command": server.command, "args": list(server.args), "env": env}
    if server.timeout is not None:
        entry["timeout"] = round(1000 * server.timeout)
    return entry
