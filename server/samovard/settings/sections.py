"""The sections of the settings: the keys, with their types, defaults and descriptions.

Knows nothing of the sources of values, or of constraints between settings.
"""

import re
import resource
import sys
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from samovard.quantities import Duration, Size

LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+|unix:.+")


def open_files() -> int:
    """Return how many files and connections this process may have open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return limit if limit != resource.RLIM_INFINITY else sys.maxsize


class Section(BaseModel):
    """A part of the settings: frozen, and with no name that is not a setting."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Server(Section):
    """Where and how the service listens, and how it goes away."""

    listen: str = Field(
        default="127.0.0.1:50051", description="Address for callers, `host:port` or `unix:/path`."
    )
    operator_listen: str = Field(
        default="",
        description="Address for the operator, `unix:/path`, or `host:port` with API keys: on "
        "loopback, or with `tls_client_ca`. Empty: `operator.sock` in `state.directory`.",
    )
    health_listen: str = Field(
        default="",
        description="Address for probes, `host:port` or `unix:/path`: `grpc.health.v1` and nothing "
        "else, without TLS or a credential. Empty: on 127.0.0.1 at the port after that of "
        "`listen`; `health.sock` in `state.directory` if `listen` is a unix socket.",
    )
    public_health: bool = Field(
        default=False,
        description="`Check` and `List` of health for callers without a credential, 8 such calls "
        "at once. For platforms whose probes ask one port only.",
    )
    tls: Literal["off", "terminated", "files"] = Field(
        default="off",
        description="`off` (loopback and unix only), `terminated` by a proxy beside, `files`.",
    )
    tls_certificate: Path | None = Field(default=None, description="PEM file, with `tls = files`.")
    tls_key: Path | None = Field(default=None, description="PEM file, with `tls = files`.")
    tls_client_ca: Path | None = Field(
        default=None, description="PEM file: clients must have a certificate that it signed."
    )
    public_reflection: bool = Field(
        default=False, description="Server reflection for callers. Always on with identity `none`."
    )
    max_connections: int | None = Field(
        default=None,
        ge=1,
        description="The most connections of callers. Unset: 1000, or half of the open files that "
        "the service may have if that is less.",
    )
    max_connection_age: Duration | None = Field(
        default=None,
        gt=0,
        description="How long a connection takes new calls, give or take a tenth; what runs on it "
        "ends in its own time. Unset: for ever. For load balancers that balance connections only.",
    )
    max_turn_streams: int = Field(
        default=32,
        ge=2,
        description="The most streams that follow one turn, its `Send` among them, before the next "
        "`Attach` is refused.",
    )
    event_hold: Duration = Field(
        default=300.0, description="How long the events of a finished turn are held."
    )
    event_hold_bytes: Size = Field(default=8 << 20, description="Bytes of events held per turn.")
    event_hold_total: Size = Field(
        default=256 << 20, description="Bytes of events held of all turns together."
    )
    reader_bytes: Size = Field(
        default=4 << 20, description="Bytes that a reader may leave unread before the agent waits."
    )
    reader_timeout: Duration = Field(
        default=10.0, description="How long a reader may stay at that bound before it is dropped."
    )
    drain_wait: Duration | None = Field(
        default=None,
        description="How long turns are still taken after SIGTERM, until routers have "
        "noticed. Unset: 5 s, on loopback and unix sockets 0.",
    )
    drain_grace: Duration = Field(default=300.0, description="How long turns may still run then.")
    stop_budget: Duration = Field(
        default=10.0, description="How long interrupting and stopping may take after that."
    )
    platform_limit: Duration | None = Field(
        default=None,
        description="When the platform kills the service after SIGTERM. Unset: unknown.",
    )

    @property
    def local(self) -> bool:
        """True if only this machine can reach the service."""
        return LOOPBACK.fullmatch(self.listen) is not None

    @property
    def connections(self) -> int:
        """Return the maximum number of callers' connections."""
        return self.max_connections or min(1000, open_files() // 2)

    @property
    def probes(self) -> str:
        """Return the address for probes, empty for a unix socket in the state directory."""
        _, _, port = self.listen.rpartition(":")
        if self.health_listen or self.listen.startswith("unix:"):
            return self.health_listen
        if port == "0":
            return "127.0.0.1:0"
        return f"127.0.0.1:{int(port) + (1 if port != '65535' else -1)}"

    @property
    def drains_for(self) -> float:
        """The seconds for which turns are still accepted after SIGTERM."""
        if self.drain_wait is not None:
            return self.drain_wait
        return 0.0 if self.local else 5.0


class State(Section):
    """What survives a restart."""

    directory: Path | None = Field(
        default=None,
        description="Where state is kept. Unset: `samovar` in the user's state directory.",
    )
    url: str = Field(
        default="",
        description="SQLAlchemy URL of the store, `sqlite:///...`. Empty: in `directory`.",
    )


class Agent(Section):
    """The `claude` CLI."""

    cli: Path | None = Field(
        default=None, description="The binary. Unset: that of `samovard[claude]`, else on the PATH."
    )
    root: Path | None = Field(
        default=None,
        description="Where sessions' directories are, a path of at most 43 bytes. Unset: `s` in "
        "`state.directory`, or, if that is too long, a directory that is made once in the home "
        "directory or in `/var/tmp`.",
    )
    max_line_bytes: Size = Field(default=64 << 20, description="The longest line that is read.")


class Isolation(Section):
    """The walls between agents, and between agents and the service."""

    require: Literal["strong", "basic", "none"] | None = Field(
        default=None,
        description="The least level that is accepted; without it the service does not start. "
        "`strong`: files, memory, signals and sockets of the file system. `basic`: files and "
        "memory. `none`: nothing, as in earlier versions. Unset: `basic`; with identity `none`, "
        "which has one tenant only, `none`.",
    )
    mechanism: Literal["auto", "bubblewrap", "landlock", "none"] = Field(
        default="auto",
        description="What puts up the walls: `bubblewrap` (strong), `landlock` (basic), `none`. "
        "`auto`: the strongest that a probe at the start cannot get out of.",
    )
    network_require: Literal["held", "best"] | None = Field(
        default=None,
        description="Whether the walls must hold `network` of every profile (`held`; only "
        "bubblewrap can), or only as far as they can (`best`). Unset: `held`; with identity "
        "`none` or pool.max_tenants = 1, which have one tenant only, `best`.",
    )
    visible: tuple[Path, ...] = Field(
        default=(),
        description="Paths that agents may read besides the system's programs, the CLI and the "
        "`path` of their profile.",
    )


class Pool(Section):
    """How many processes there are, and how long they and their callers wait."""

    slots: int | None = Field(
        default=None, ge=1, description="The most processes. Unset: one for each 512 MiB of memory."
    )
    queue_limit: int | None = Field(
        default=None,
        ge=1,
        description="The most turns that wait, of all tenants; one place in eight is "
        "kept for tenants that neither run nor wait. Unset: four for each slot.",
    )
    max_wait: Duration = Field(default=60.0, description="How long a turn waits for a process.")
    max_starting: int | None = Field(
        default=None,
        ge=1,
        description="Processes that start at once. Unset: one for each two cores.",
    )
    idle_ttl: Duration = Field(default=1800.0, description="How long a process may idle.")
    max_tenants: int | None = Field(
        default=None,
        ge=1,
        description="The most tenants that are served until the service ends, those with stored "
        "sessions among them. With 1, the first one has the service to itself. Unset: any number.",
    )
    exit_when_empty: bool = Field(
        default=False,
        description="Shut down, with exit code 0, once the last session is closed.",
    )
    default_profile: str = Field(default="default", description="Of sessions that name none.")


class Tenant(Section):
    """Bounds of one tenant; those of `default` are of all tenants that have none of their own."""

    queue_limit: int = Field(
        default=16, ge=1, description="The most turns of the tenant that wait for a process."
    )
    weight: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        description="The tenant's share of the processes, in proportion to other tenants' weights, "
        "while turns of several tenants wait. What counts is how long turns take.",
    )
    max_processes: int | None = Field(
        default=None,
        ge=1,
        description="The most processes of the tenant. Unset: as many as there are slots.",
    )
    turns_per_minute: int | None = Field(
        default=None,
        ge=1,
        description="The most turns of the tenant that begin in a minute. Unset: any number.",
    )
    cost_per_day_usd: float | None = Field(
        default=None,
        gt=0,
        description="What the tenant's turns may cost on a day in UTC, in US dollars: no turn "
        "begins beyond it, and one that passes it is interrupted. Unset: any amount.",
    )


class Credentials(Section):
    """The credential that the agent uses."""

    provider: Literal["env", "file", "mount", "command"] | None = Field(
        default=None,
        description="Where the credential is. Unset: there is none, and no turn can run.",
    )
    variable: str = Field(default="ANTHROPIC_API_KEY", description="The variable, with `env`.")
    path: Path | None = Field(
        default=None,
        description="With `file`: readable by its owner only. With `mount`: a directory with a "
        "file per tenant, or one file for all.",
    )
    command: tuple[str, ...] = Field(
        default=(),
        description="With `command`: a program and its arguments. It is run with the tenant's name "
        "as one more argument and prints the credential, within 5 s; what it prints is kept for 5 "
        "minutes, or until the API refuses it.",
    )
    kind: Literal["api_key", "oauth_token"] = Field(default="api_key", description="What it is.")
    oauth_token_owner: Literal["operator"] | None = Field(
        default=None,
        description="Must be `operator` for an `oauth_token`: users' tokens are refused.",
    )
    delivery: Literal["broker", "descriptor", "environment"] = Field(
        default="broker",
        description="`broker`: requests to the API pass the service, which puts it in; no process "
        "has it. `descriptor`: a process reads it from a pipe. `environment` shows it to its "
        "tools.",
    )
    allow_environment: bool = Field(default=False, description="Must be set for `environment`.")
    upstream: str = Field(default="", description="Base URL of the API. Empty: the CLI's own.")
    proxy: str = Field(
        default="",
        description="Proxy that agents and their tools use, `http://host:port` or "
        "`https://host:port`, without a user name or password. Empty: none.",
    )
    no_proxy: tuple[str, ...] = Field(
        default=(), description="Hosts that are reached without the proxy."
    )
    ca_bundle: Path | None = Field(
        default=None,
        description="PEM file with authorities that agents trust besides the CLI's own, such as "
        "the proxy's.",
    )


class Telemetry(Section):
    """What is told of what happens."""

    endpoint: str = Field(
        default="",
        description="OTLP URL of a collector, `http://` or `https://`. Empty: nothing is exported.",
    )
    protocol: Literal["grpc", "http/protobuf"] = Field(
        default="grpc", description="How the collector at `endpoint` is spoken to."
    )
    sample_ratio: float = Field(
        default=1.0, ge=0, le=1, description="The share of traces to record that begin here."
    )
    prometheus_listen: str = Field(
        default="",
        description="Where metrics can be fetched, `host:port`; plain HTTP, without a credential. "
        "Empty: nowhere.",
    )
    agent_endpoint: str = Field(
        default="",
        description="OTLP URL that the agents export their own spans to, as `http/protobuf`. "
        "Empty: they make none.",
    )
    caller_attributes: bool = Field(
        default=False,
        description="Spans of calls have the caller's `user_agent.original` and "
        "`network.peer.address`.",
    )
    tenants: tuple[str, ...] = Field(
        default=(),
        max_length=100,
        description="Tenants that metrics of turns, refusals and cost have by name, at most 100. "
        "All others are `_OTHER`. Empty: no metric has tenants.",
    )
    old_names: bool = Field(
        default=False,
        description="Export what 0.1.0 renamed under its old name, too. Goes with 0.2.0.",
    )

    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: for people on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged."
    )
