"""Profiles: the named sets of launch options, with their MCP servers.

Knows nothing of the sources of values, or of constraints between settings.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from samovard.quantities import Duration, Size
from samovard.settings.sections import Section


class Mcp(Section):
    """An MCP server of a profile: a program of its path, or an HTTP server."""

    command: str = Field(default="", description="The program, which speaks on stdin and stdout.")
    args: tuple[str, ...] = Field(default=(), description="Its arguments.")
    env: dict[str, str] = Field(
        default={}, description="Variables of the program. The agent can read them: no secrets."
    )
    url: str = Field(default="", description="The address of an HTTP server, instead of a program.")
    headers: dict[str, str] = Field(
        default={}, description="Headers of requests to it. The agent can read them: no secrets."
    )
    secret_headers: dict[str, Path] = Field(
        default={},
        description="Headers of requests to it that the credential broker puts in: each is the "
        "path of a file with the value, such as `Bearer TOKEN`. The agent never has it.",
    )
    timeout: Duration | None = Field(
        default=None, ge=1, description="How long a call of its tools may take. Unset: any time."
    )


class Profile(Section):
    """A named set of launch options; sessions choose one and cannot go beyond it."""

    model: str = Field(default="sonnet", description="The model.")
    models: tuple[str, ...] = Field(default=(), description="Others that a session may choose.")
    fallback_models: tuple[str, ...] = Field(
        default=(),
        description="Models that answer a turn whose own is overloaded, in order.",
    )
    tools: tuple[str, ...] = Field(default=(), description="Tools that exist.")
    allowed_tools: tuple[str, ...] = Field(default=(), description="Tools that need no permission.")
    append_system_prompt: str = Field(default="", description="Text appended to the system prompt.")
    path: str = Field(
        default="/usr/local/bin:/usr/bin:/bin", description="PATH of the agent's tools."
    )
    network: Literal["broker", "hosts", "open"] | None = Field(
        default=None,
        description="What agents reach: `broker` (the model's API by way of the credential broker, "
        "and nothing else), `hosts` (that, and `hosts` by way of a proxy), or `open` (whatever "
        "the machine reaches). Unset: `broker` with that delivery, else `open`, as with `cloud`.",
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        description="Hosts that tools reach with `network` = `hosts`: `name`, `*.domain`, or "
        "either with `:port`. Without one, ports 80 and 443.",
    )
    cloud: Literal["bedrock", "vertex"] | None = Field(
        default=None,
        description="The cloud whose models it has: the CLI signs requests itself, and the agent "
        "can read what with. Unset: the Anthropic API.",
    )
    cloud_environment: dict[str, str] = Field(
        default={}, repr=False, description="Variables for the cloud, such as its region."
    )
    cloud_secrets: Path | None = Field(
        default=None,
        description="File with secret variables for the cloud, a line `NAME=VALUE` for each, that "
        "only its owner can read. It is read at each start of a process.",
    )
    cli_retries: int = Field(default=3, ge=0, description="How often the CLI retries a request.")
    turn_timeout: Duration = Field(default=1800.0, gt=0, description="How long a turn may run.")
    first_timeout: Duration = Field(
        default=120.0, gt=0, description="How long a turn may go without its first progress."
    )
    stream_timeout: Duration = Field(
        default=120.0, gt=0, description="How long the model may make no progress in a turn."
    )
    tool_timeout: Duration = Field(
        default=900.0, gt=0, description="How long a turn may wait for the result of a tool."
    )
    compact_timeout: Duration = Field(
        default=300.0, gt=0, description="How long shortening the conversation may take."
    )
    max_agent_steps: int | None = Field(
        default=None, ge=1, description="The most steps of the agent in a turn. Unset: no bound."
    )
    max_cost_usd: float | None = Field(
        default=None,
        gt=0,
        description="What a turn may cost by the CLI's own count, in US dollars. Unset: no bound.",
    )
    max_subagents: int | None = Field(
        default=None, ge=0, description="The most sub-agents in a process's life. Unset: no bound."
    )
    mcp: dict[str, Mcp] = Field(default={}, description="MCP servers by name.")
    mcp_timeout: Duration = Field(
        default=10.0, gt=0, description="How long a start waits for an MCP server."
    )
    json_schema: Path | None = Field(
        default=None,
        description="File with a JSON schema of an object: each turn's result is such an object.",
    )
    permission_policy: Literal["deny", "ask"] = Field(
        default="deny",
        description="What happens when a tool needs permission: `deny`, or `ask` the caller.",
    )
    allow_ask: bool = Field(default=False, description="Whether a session may choose `ask`.")
    allow_rewrite: bool = Field(
        default=False, description="Whether an answer may change what a tool is given."
    )
    allow_raw_json: bool = Field(
        default=False,
        description="Whether callers may see the agent's own lines, which hold paths.",
    )
    permission_timeout: Duration = Field(
        default=300.0, gt=0, description="How long a caller is asked before a tool is denied."
    )
    max_disk: Size | None = Field(
        default=None,
        gt=0,
        description="What a session's directory may take of the disk, looked at every 10 s. Above "
        "it a turn is interrupted, and a process that idles is stopped. Unset: no bound.",
    )
    max_processes: int | None = Field(
        default=512,
        ge=32,
        description="The most processes and threads of an agent with its tools, counted every "
        "second: with more, all of them are killed. Behind `bubblewrap` none beyond it can be "
        "started. Unset: no bound.",
    )
    max_memory: Size | None = Field(
        default=2 << 30,
        ge=1 << 30,
        description="The memory that each process of an agent may allocate (`RLIMIT_DATA`), not "
        "all of them together. Unset: no bound.",
    )
    session_queue: int = Field(default=1, ge=0, le=16, description="Turns that may wait in it.")
    session_ttl: Duration = Field(
        default=30 * 86400.0, description="How long after its last turn a session is kept."
    )

    def reaches(self, delivery: str) -> str:
        """Return what its agents reach, with this delivery of credentials: see `network`."""
        brokered = delivery == "broker" and self.cloud is None
        return self.network or ("broker" if brokered else "open")
