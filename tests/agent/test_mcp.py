"""The file that tells the CLI of MCP servers."""

import json
from pathlib import Path

from samovard.agent import mcp
from samovard.agent.mcp import McpServer
from samovard.agent.process_tree import MARKER


def test_a_program_has_the_marker_of_its_tree() -> None:
    """By reference, as the CLI takes it from its own environment."""
    server = McpServer("/usr/bin/docs", ("--fast",), {"LEVEL": "1"})
    assert json.loads(mcp.config({"docs": server})) == {
        "mcpServers": {
            "docs": {
                "command": "/usr/bin/docs",
                "args": ["--fast"],
                "env": {"LEVEL": "1", MARKER: f"${{{MARKER}}}"},
            }
        }
    }


def test_an_http_server_has_an_address_and_headers() -> None:
    """And no variables: it is no program of ours."""
    server = McpServer(url="https://mcp.example/v1", headers={"x-team": "a"}, timeout=1.5)
    assert json.loads(mcp.config({"far": server}))["mcpServers"]["far"] == {
        "type": "http",
        "url": "https://mcp.example/v1",
        "headers": {"x-team": "a"},
        "timeout": 1500,
    }


def test_a_server_with_secrets_is_at_the_agents_address() -> None:
    """With neither its own address nor its headers."""
    secret = {"authorization": Path("/run/secrets/ticket")}
    server = McpServer(url="https://mcp.example/v1", headers={"a": "b"}, secret_headers=secret)
    written = mcp.config({"far": server}, "http://127.0.0.1:4180/token")
    assert json.loads(written)["mcpServers"]["far"] == {
        "type": "http",
        "url": "http://127.0.0.1:4180/token/mcp/far",
        "headers": {},
    }
