"""The settings: frozen, complete, and checked at start.

A TOML file, and environment variables over it (`SAMOVAR_SECTION__KEY`). Nothing else
reads the service's environment. Knows nothing of what a setting is used for.
"""

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from samovard.quantities import Duration, Size

PREFIX = "SAMOVAR_"
NAME = r"[a-z0-9][a-z0-9._-]{0,62}"
MAX_TMP_PATH = 80  # a longer one and the CLI puts its inbox into the shared temp directory

_LOOPBACK = re.compile(r"(127\.\d+\.\d+\.\d+|localhost|\[::1\]):\d+|unix:.+")

#: Whatever else would show the credential to the network.
_UPSTREAM = re.compile(r"https://|http://(127\.\d+\.\d+\.\d+|localhost|\[::1\])(:\d+)?(/|$)")


class SettingsError(Exception):
    """The settings cannot be used: one sentence that names the key."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Server(_Section):
    """Where and how the service listens, and how it goes away."""

    listen: str = Field(
        default="127.0.0.1:50051", description="Address for callers, `host:port` or `unix:/path`."
    )
    operator_listen: str = Field(
        default="",
        description="Unix socket for the operator, `unix:/path`. Empty: in `state.directory`.",
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
    event_hold: Duration = Field(
        default=300.0, description="How long the events of a finished turn are held."
    )
    event_hold_bytes: Size = Field(default=8 << 20, description="Bytes of events held per turn.")
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
        """Tells whether only this machine reaches the service."""
        return _LOOPBACK.fullmatch(self.listen) is not None

    @property
    def drains_for(self) -> float:
        """How long turns are still taken after SIGTERM, in seconds."""
        if self.drain_wait is not None:
            return self.drain_wait
        return 0.0 if self.local else 5.0


class State(_Section):
    """What survives a restart."""

    directory: Path | None = Field(
        default=None,
        description="Where state is kept. Unset: `samovar` in the user's state directory.",
    )
    url: str = Field(
        default="",
        description="SQLAlchemy URL of the store, `sqlite:///...`. Empty: in `directory`.",
    )


class ApiKey(_Section):
    """Keys that samovard gives out itself."""

    pepper: Path | None = Field(
        default=None,
        description="File with the secret that keys are hashed with. "
        "Unset: made in `state.directory` at first use.",
    )


class Auth(_Section):
    """Who may call."""

    methods: tuple[Literal["none", "api_key"], ...] = Field(
        default=("none",), min_length=1, description="`none` (this machine only) or `api_key`."
    )
    api_key: ApiKey = ApiKey()
    page_key: Path | None = Field(
        default=None,
        description="File with the secret that page tokens are signed with. "
        "Unset: made in `state.directory` at first start.",
    )


class Agent(_Section):
    """The `claude` CLI."""

    cli: Path | None = Field(
        default=None, description="The binary. Unset: that of `samovard[claude]`, else on the PATH."
    )
    root: Path | None = Field(
        default=None,
        description="Where sessions' directories are. Unset: `s` in `state.directory`.",
    )
    max_line_bytes: Size = Field(default=64 << 20, description="The longest line that is read.")


class Pool(_Section):
    """How many processes there are, and how long they and their callers wait."""

    slots: int | None = Field(
        default=None, ge=1, description="The most processes. Unset: one for each 512 MiB of memory."
    )
    queue_limit: int | None = Field(
        default=None, ge=1, description="The most turns that wait. Unset: four for each slot."
    )
    max_wait: Duration = Field(default=60.0, description="How long a turn waits for a process.")
    max_starting: int | None = Field(
        default=None,
        ge=1,
        description="Processes that start at once. Unset: one for each two cores.",
    )
    idle_ttl: Duration = Field(default=1800.0, description="How long a process may idle.")
    default_profile: str = Field(default="default", description="Of sessions that name none.")


class Profile(_Section):
    """A named set of launch options; sessions choose one and cannot go beyond it."""

    model: str = Field(default="sonnet", description="The model.")
    models: tuple[str, ...] = Field(default=(), description="Others that a session may choose.")
    tools: tuple[str, ...] = Field(default=(), description="Tools that exist.")
    allowed_tools: tuple[str, ...] = Field(default=(), description="Tools that need no permission.")
    append_system_prompt: str = Field(default="", description="Text appended to the system prompt.")
    path: str = Field(
        default="/usr/local/bin:/usr/bin:/bin", description="PATH of the agent's tools."
    )
    cli_retries: int = Field(default=3, ge=0, description="How often the CLI retries a request.")
    turn_timeout: Duration = Field(default=1800.0, gt=0, description="How long a turn may run.")
    max_agent_steps: int | None = Field(
        default=None, ge=1, description="The most steps of the agent in a turn. Unset: no bound."
    )
    session_queue: int = Field(default=1, ge=0, le=16, description="Turns that may wait in it.")
    session_ttl: Duration = Field(
        default=30 * 86400.0, description="How long after its last turn a session is kept."
    )


class Credentials(_Section):
    """The credential that the agent uses."""

    provider: Literal["env", "file"] | None = Field(
        default=None,
        description="Where the credential is. Unset: there is none, and no turn can run.",
    )
    variable: str = Field(default="ANTHROPIC_API_KEY", description="The variable, with `env`.")
    path: Path | None = Field(default=None, description="The file, readable by its owner only.")
    kind: Literal["api_key", "oauth_token"] = Field(default="api_key", description="What it is.")
    oauth_token_owner: Literal["operator"] | None = Field(
        default=None,
        description="Must be `operator` for an `oauth_token`: users' tokens are refused.",
    )
    delivery: Literal["descriptor", "environment"] = Field(
        default="descriptor",
        description="How a process gets it. `environment` shows it to its tools.",
    )
    allow_environment: bool = Field(default=False, description="Must be set for `environment`.")
    upstream: str = Field(default="", description="Base URL of the API. Empty: the CLI's own.")


class Telemetry(_Section):
    """What is told of what happens."""

    log_format: Literal["auto", "json", "console"] = Field(
        default="auto", description="`auto`: for people on a terminal, else JSON."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least that is logged."
    )


class _Environment(EnvSettingsSource):
    """The environment, in which lists and tables are JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Leaves what is not JSON as it is, so that it is refused with its own key."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value


class Settings(BaseSettings):
    """All settings. Without any they make a working service on this machine."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__"
    )

    server: Server = Server()
    state: State = State()
    auth: Auth = Auth()
    agent: Agent = Agent()
    pool: Pool = Pool()
    profiles: dict[Annotated[str, Field(pattern=f"^{NAME}$")], Profile] = Field(
        default={"default": Profile()}
    )
    credentials: Credentials = Credentials()
    telemetry: Telemetry = Telemetry()

    @property
    def directory(self) -> Path:
        """Where state is kept."""
        return self.state.directory or _state_home() / "samovar"

    @property
    def root(self) -> Path:
        """Where sessions' directories are."""
        return self.agent.root or self.directory / "s"

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the store."""
        return self.state.url or f"sqlite:///{self.directory / 'samovar.db'}"

    @property
    def slots(self) -> int:
        """The most processes."""
        return self.pool.slots or max(_memory() // (512 << 20), 1)

    @property
    def queue_limit(self) -> int:
        """The most turns that wait."""
        return self.pool.queue_limit or 4 * self.slots

    @property
    def max_starting(self) -> int:
        """The most processes that start at once."""
        return self.pool.max_starting or max((os.cpu_count() or 1) // 2, 1)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for problem in (*_exposure(self.server, self.auth), *_rest(self)):
            raise ValueError(problem)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Takes the environment first, then what `load` read from the file."""
        return _Environment(settings_cls), init_settings


def load(config: Path | None = None) -> Settings:
    """Reads the settings from a TOML file, if one is named, and the environment.

    Raises `SettingsError` with a sentence that names the key.
    """
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise SettingsError(f"{config}: {error}") from error
    _check_environment()
    try:
        return Settings(**values)
    except ValidationError as error:
        raise SettingsError(sentence(error)) from None


def sentence(error: ValidationError) -> str:
    """Says the first thing that is wrong, with the key that it is wrong with."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        return f"{key} is not a setting"
    what = first["msg"].removeprefix("Value error, ")
    return f"{key}: {what}" if key else what


def _check_environment() -> None:
    for name in os.environ:
        section, nested, _ = name.removeprefix(PREFIX).lower().partition("__")
        if name.startswith(PREFIX) and nested and section not in Settings.model_fields:
            raise SettingsError(f"{name} is not a setting: there is no section {section}")


def _exposure(server: Server, auth: Auth) -> list[str]:
    problems = []
    if "none" in auth.methods and len(auth.methods) > 1:
        problems.append("auth.methods: none cannot stand beside another method")
    if "none" in auth.methods and not server.local:
        problems.append("auth.methods: none needs server.listen on loopback or a unix socket")
    if server.tls == "off" and not server.local:
        problems.append("server.tls: off needs server.listen on loopback or a unix socket")
    if server.operator_listen and not server.operator_listen.startswith("unix:"):
        problems.append("server.operator_listen: must be a unix socket, `unix:/path`")
    if server.tls != "files":
        files = ("tls_certificate", "tls_key", "tls_client_ca")
        unused = [name for name in files if getattr(server, name) is not None]
        problems += [f"server.{name}: needs server.tls = files" for name in unused]
    elif not (server.tls_certificate and server.tls_key):
        problems.append("server.tls: files needs server.tls_certificate and server.tls_key")
    total = server.drains_for + server.drain_grace + server.stop_budget
    if server.platform_limit is not None and total > server.platform_limit:
        problems.append(
            f"server.platform_limit: drain_wait, drain_grace and stop_budget take {total:g} s"
        )
    return problems


def _rest(settings: Settings) -> list[str]:
    problems = []
    credentials = settings.credentials
    if settings.pool.default_profile not in settings.profiles:
        problems.append(f"pool.default_profile: there is no {settings.pool.default_profile}")
    if credentials.provider == "file" and credentials.path is None:
        problems.append("credentials.path: is needed with credentials.provider = file")
    if credentials.delivery == "environment" and not credentials.allow_environment:
        problems.append("credentials.delivery: environment needs credentials.allow_environment")
    if credentials.kind == "oauth_token" and credentials.oauth_token_owner != "operator":
        problems.append("credentials.kind: oauth_token needs credentials.oauth_token_owner")
    if not settings.url.startswith("sqlite:///"):
        problems.append("state.url: must begin with sqlite:///")
    if credentials.upstream and not _UPSTREAM.match(credentials.upstream):
        problems.append("credentials.upstream: must be https, or http on loopback")
    longest = len(os.fsencode(settings.root.absolute())) + len("/") + 32 + len("/tmp")
    if longest > MAX_TMP_PATH:
        problems.append(f"agent.root: its path is {longest - MAX_TMP_PATH} bytes too long")
    return problems


def _state_home() -> Path:
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    if named.is_absolute():  # others count as unset, says its specification
        return named
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:
        raise ValueError("state.directory: is needed where there is no home directory") from None


def _memory() -> int:
    """Gives the memory that this service may use: of its cgroup, else of the machine."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return machine
    return min(int(limit), machine) if limit.isdigit() else machine
