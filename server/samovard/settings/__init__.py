"""The settings: frozen, complete, and checked at start.

A TOML file, and environment variables over it (`SAMOVAR_SECTION__KEY`). Nothing else
reads the service's environment. Knows nothing of what a setting is used for.
"""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from samovard.settings import checks, memory
from samovard.settings.auth import TENANT, ApiKey, Auth, Jwt, Mtls
from samovard.settings.profile import Profile
from samovard.settings.sections import (
    Agent,
    Credentials,
    Isolation,
    Pool,
    Server,
    State,
    Telemetry,
    Tenant,
)

__all__ = [
    "NAME",
    "PREFIX",
    "TENANT",
    "Agent",
    "ApiKey",
    "Auth",
    "Credentials",
    "Isolation",
    "Jwt",
    "Mtls",
    "Pool",
    "Profile",
    "Server",
    "Settings",
    "SettingsError",
    "State",
    "Telemetry",
    "Tenant",
    "given",
    "load",
    "named_cli",
    "sentence",
    "sources",
    "unused_credential",
]

PREFIX = "SAMOVAR_"
NAME = r"[a-z0-9][a-z0-9._-]{0,62}"


class SettingsError(Exception):
    """The settings cannot be used: one sentence that names the key."""


class _Environment(EnvSettingsSource):
    """The environment, in which lists and tables are JSON."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Return a value that is not JSON unchanged, so that the error names its own key."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except (ValueError, RecursionError):
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
    isolation: Isolation = Isolation()
    pool: Pool = Pool()
    profiles: dict[Annotated[str, Field(pattern=f"^{NAME}$")], Profile] = Field(
        default={"default": Profile()}
    )
    tenants: dict[Annotated[str, Field(pattern=f"^{TENANT}$")], Tenant] = Field(
        default={"default": Tenant()}
    )
    credentials: Credentials = Credentials()
    telemetry: Telemetry = Telemetry()

    @property
    def directory(self) -> Path:
        """The directory of the service's state."""
        return self.state.directory or _state_home() / "samovar"

    @property
    def root(self) -> Path:
        """The directory of the sessions' directories, if its path is short enough; see
        `agent.root`.
        """
        return self.agent.root or self.directory / "s"

    @property
    def audit_sink(self) -> str:
        """The destination of the audit log; see `auth.audit_sink`."""
        return self.auth.audit_sink or str(self.directory / "audit.jsonl")

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the store."""
        return self.state.url or f"sqlite:///{self.directory / 'samovar.db'}"

    @property
    def required_isolation(self) -> str:
        """The least level of isolation that is accepted."""
        return self.isolation.require or ("none" if "none" in self.auth.methods else "basic")

    @property
    def required_network(self) -> str:
        """Whether the walls must hold what profiles say of the network: `held` or `best`."""
        one_tenant = "none" in self.auth.methods or self.pool.max_tenants == 1
        return self.isolation.network_require or ("best" if one_tenant else "held")

    @property
    def offline(self) -> list[str]:
        """The profiles whose agents are to reach nothing but what the broker lets them."""
        return [
            name
            for name, profile in self.profiles.items()
            if profile.reaches(self.credentials.delivery) != "open"
        ]

    @property
    def clouds(self) -> list[str]:
        """The profiles whose agents sign requests to a cloud themselves."""
        return [name for name, profile in self.profiles.items() if profile.cloud is not None]

    @property
    def slots(self) -> int:
        """The maximum number of processes."""
        return self.pool.slots or max(memory.usable() // (512 << 20), 1)

    @property
    def queue_limit(self) -> int:
        """The maximum number of waiting turns."""
        return self.pool.queue_limit or 4 * self.slots

    @property
    def tenant_calls(self) -> int:
        """The most concurrent calls of one tenant, which leaves room for other tenants."""
        return self.slots + self.queue_limit + checks.HEADROOM

    @property
    def max_starting(self) -> int:
        """The maximum number of processes that start at once."""
        return self.pool.max_starting or max((os.cpu_count() or 1) // 2, 1)

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for problem in (*checks.exposure(self.server, self.auth), *checks.rest(self)):
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
        """Use the given values alone: `load` reads the environment."""
        return (init_settings,)


def given(values: dict[str, Any]) -> Settings:
    """Return settings of these values and defaults, whatever the environment holds."""
    return Settings(**values)


@dataclass(frozen=True, slots=True)
class Sources:
    """The values that are set, by source: a later source wins, key by key."""

    file: dict[str, Any]
    environment: dict[str, Any]
    options: dict[str, Any]

    def settings(self) -> Settings:
        """Return the settings of all sources. Raise `SettingsError`, which names the key."""
        try:
            return given(_merged(_merged(self.file, self.environment), self.options))
        except ValidationError as error:
            raise SettingsError(sentence(error)) from None


def load(config: Path | None = None, listen: str | None = None) -> Settings:
    """Return the settings of a TOML file, if one is named, and of the environment.

    `listen` replaces `server.listen`. Raise `SettingsError` with a sentence that names the key.
    """
    return sources(config, listen).settings()


def sources(config: Path | None = None, listen: str | None = None) -> Sources:
    """Return what the file, the environment and the options set. Raise `SettingsError`."""
    file: dict[str, Any] = {}
    if config is not None:
        try:
            file = tomllib.loads(config.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"{config}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{config}: {error}") from error
    _check_texts(file)
    _check_environment()
    options = {} if listen is None else {"server": {"listen": listen}}
    return Sources(file, _Environment(Settings)(), options)


def _merged(weaker: dict[str, Any], stronger: dict[str, Any]) -> dict[str, Any]:
    """Return both merged: a value of the stronger one wins, and tables are merged."""
    merged = dict(weaker)
    for key, value in stronger.items():
        below = merged.get(key)
        both = isinstance(below, dict) and isinstance(value, dict)
        merged[key] = _merged(below or {}, value) if both else value
    return merged


def unused_credential(settings: Settings) -> str:
    """Return the variable that holds a credential that no setting uses; empty if none does."""
    name = settings.credentials.variable
    return name if settings.credentials.provider is None and os.environ.get(name) else ""


def named_cli() -> str | None:
    """Return the CLI that the environment names, for a program that reads no other setting."""
    return os.environ.get(f"{PREFIX}AGENT__CLI")


def sentence(error: ValidationError) -> str:
    """Return a sentence with the first error and its key."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        return f"{key} is not a setting"
    what = first["msg"].removeprefix("Value error, ")
    return f"{key}: {what}" if key else what


def _check_environment() -> None:
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and not _is_text(value):
            raise SettingsError(f"{name} is not UTF-8")
        section, nested, _ = name.removeprefix(PREFIX).lower().partition("__")
        if name.startswith(PREFIX) and nested and section not in Settings.model_fields:
            raise SettingsError(f"{name} is not a setting: there is no section {section}")


def _is_text(value: str) -> bool:
    """True if no byte of it was read as a surrogate, which could not be written again."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _check_texts(values: object, key: str = "") -> None:
    """Raise `SettingsError` for a text that no path or argument can hold."""
    if isinstance(values, str) and "\0" in values:
        raise SettingsError(f"{key}: must not hold a NUL character")
    parts = values.items() if isinstance(values, dict) else ()
    rows = enumerate(values) if isinstance(values, list) else ()
    for name, value in (*parts, *rows):
        _check_texts(value, f"{key}.{name}" if key else str(name))


def _state_home() -> Path:
    named = Path(os.environ.get("XDG_STATE_HOME", ""))
    if named.is_absolute():  # the specification says that a relative path counts as unset
        return named
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:
        raise ValueError("state.directory: is needed where there is no home directory") from None
