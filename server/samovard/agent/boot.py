"""Prepare the agent when the service starts: find the CLI, test it, and decide how to run it.

Knows the settings of agents and credentials. Knows nothing of sessions or gRPC.
"""

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from samovard.agent import binary, launch
from samovard.agent.agents import ClaudeAgents, Delivery, Ledger, Remove
from samovard.agent.binary import Cli
from samovard.agent.clouds import Cloud
from samovard.agent.command import Command
from samovard.agent.credentials import Env, File, Kind, Mount, Provider, header
from samovard.agent.egress import check_hosts, egress_of
from samovard.agent.home import Homes
from samovard.agent.isolation import ladder
from samovard.agent.isolation.ladder import Isolation
from samovard.agent.machine import Machine
from samovard.agent.mcp import McpServer
from samovard.agent.selftest.trial import TrialStart
from samovard.agent.tracing import Tracing
from samovard.core.errors import Misconfigured
from samovard.settings import Credentials, Profile, Settings

if TYPE_CHECKING:
    from samovard.agent.broker.broker import Broker
    from samovard.agent.broker.passages import OnPassage
    from samovard.agent.broker.proxy import Report
    from samovard.agent.selftest import checks
    from samovard.agent.selftest.full import FullSelfTest

TESTED = "self-test.json"  # the versions that passed, by digest and delivery
TRACES = " traces"  # appended to that key: whether trace contexts were taken

_log = structlog.get_logger("samovard.boot")


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent, ready to run."""

    cli: Cli
    version: str
    agents: ClaudeAgents
    provider: Provider | None
    machine: Machine
    trial: TrialStart
    isolation: Isolation


async def prepare(
    settings: Settings,
    homes: Homes,
    ledger: Ledger,
    server_id: str,
    remove: Remove,
    provider: Provider | None,
    broker: "Broker | None",
) -> Agent:
    """Find the CLI, put up walls, and test the CLI unless it has passed before.

    `remove` removes sessions' homes. Agents reach the API through `broker` if there is one. Raise
    `Misconfigured` (binary-missing, isolation-refused, agent-unsupported) with a line that says
    what to do.
    """
    found = binary.find(settings.agent.cli, os.environ.get("PATH", ""))
    how = launch.Delivery(settings.credentials.delivery)
    egress = egress_of(settings.credentials)
    # Before the test: a change during it must count as a change.
    programs = (found.path, launch.LAUNCHER)
    machine = Machine(programs, settings.directory, settings.root)

    isolation = await ladder.chosen(settings, homes, found.path)
    tracing = Tracing(settings.telemetry.agent_endpoint)

    async def tested() -> tuple[Cli, str]:
        now = await binary.identified(found, settings.directory)
        return now, await _tested(now, how, settings, homes, ledger, server_id, tracing)

    known, version = await tested()
    agents = ClaudeAgents(
        known,
        version,
        homes,
        {name: options_of(settings, name) for name in settings.profiles},
        Delivery(provider, how, settings.credentials.upstream, egress, broker),
        ledger,
        server_id,
        settings.agent.max_line_bytes,
        tracing,
        remove,
        isolation.walls,
    )
    trial = TrialStart(agents, machine, tested, settings.pool.default_profile)
    return Agent(known, version, agents, provider, machine, trial, isolation)


def provider_of(settings: Credentials) -> Provider | None:
    """Return the provider of the credential, or None if none is configured."""
    kind = Kind(settings.kind)
    if settings.provider == "env":
        return Env(settings.variable, os.environ, kind)
    if settings.provider == "file" and settings.path is not None:
        return File(settings.path, kind)
    if settings.provider == "mount" and settings.path is not None:
        return Mount(settings.path, kind)
    if settings.provider == "command":
        return Command(settings.command, kind)
    return None


@asynccontextmanager
async def brokering(
    settings: Settings, provider: Provider | None, report: "Report", passed: "OnPassage"
) -> "AsyncIterator[Broker | None]":
    """Run the broker if credentials are delivered by it.

    On the broker's thread `report` is told of each request to the API, `passed` of each connection
    of a tool.

    Raise `Misconfigured` (options-refused) if the authorities cannot be used.
    """
    credentials, collector = settings.credentials, settings.telemetry.agent_endpoint
    if credentials.delivery != "broker" or provider is None:
        yield None
        return
    # Imported here: HTTP takes long to import, and other deliveries do not need it.
    from samovard.agent.broker.broker import Broker
    from samovard.agent.broker.spans import PATH
    from samovard.agent.broker.upstream import Upstream

    egress_of(credentials)  # for its error alone: it names the setting
    traces = collector and collector.rstrip("/") + PATH
    way = (credentials.proxy, credentials.no_proxy, credentials.ca_bundle)
    upstream = Upstream(credentials.upstream, *way, traces)
    servers = {name: servers_of(profile) for name, profile in settings.profiles.items()}
    async with Broker(provider, upstream, report, servers, on_passage=passed) as broker:
        yield broker


def options_of(settings: Settings, name: str) -> launch.LaunchOptions:
    """Return the launch options of a profile.

    Raise `Misconfigured` (options-refused) for an entry of `hosts` that is none, and if the program
    of an MCP server is not there, its host not listed or the file of a secret not readable; and
    (credential-missing) if the secrets of its cloud cannot be used.
    """
    profile = settings.profiles[name]
    network = profile.reaches(settings.credentials.delivery)
    if network == "hosts":
        check_hosts(profile, name)
    for server, options in profile.mcp.items():
        if options.command and shutil.which(options.command, path=profile.path) is None:
            raise Misconfigured(
                f"profiles.{name}.mcp.{server}.command: there is no program {options.command} in "
                "the profile's path",
                cause="options-refused",
            )
        for field, path in options.secret_headers.items():
            try:
                header(path)  # for its error alone
            except Misconfigured as error:
                raise Misconfigured(
                    f"profiles.{name}.mcp.{server}.secret_headers.{field}: {path}: {error}",
                    cause="options-refused",
                ) from error
    return launch.LaunchOptions(
        model=profile.model,
        path=profile.path,
        fallback_models=profile.fallback_models,
        tools=profile.tools,
        allowed_tools=profile.allowed_tools,
        cli_retries=profile.cli_retries,
        max_agent_steps=profile.max_agent_steps,
        json_schema=_schema(profile.json_schema),
        max_subagents=profile.max_subagents,
        mcp=servers_of(profile),
        mcp_timeout=profile.mcp_timeout,
        max_processes=profile.max_processes,
        max_memory=profile.max_memory,
        offline=network != "open",
        hosts=profile.hosts,
        cloud=_cloud(profile, name),
    )


def servers_of(profile: Profile) -> dict[str, McpServer]:
    """Return the MCP servers of a profile by name."""
    return {name: McpServer(**dict(server)) for name, server in profile.mcp.items()}


def _cloud(profile: Profile, name: str) -> Cloud | None:
    if profile.cloud is None:
        return None
    setting = f"profiles.{name}.cloud_secrets"
    cloud = Cloud(profile.cloud, profile.cloud_environment, profile.cloud_secrets, setting)
    cloud.variables()  # for its error alone: it names the setting
    return cloud


async def _tested(
    found: Cli,
    how: launch.Delivery,
    settings: Settings,
    homes: Homes,
    ledger: Ledger,
    server_id: str,
    tracing: Tracing,
) -> str:
    """Return the version of a CLI that passes the self-test, now or earlier.

    `tracing` is told if the CLI takes no trace contexts, which is no reason to refuse it.
    """
    notes = settings.directory / TESTED
    key = f"{found.digest} {how.value}"
    passed = _read(notes)
    if key not in passed:
        _log.info("self_test.started", cli=str(found.path))
        version, checks = await test(found, how, homes, settings.root, ledger, server_id)
        failed = [check for check in checks if not check.passed]
        if fatal := [check for check in failed if check.fatal]:
            raise unsupported(found, fatal[0])
        passed[key] = version
        passed[f"{key}{TRACES}"] = "refused" if failed else "taken"
        _write(notes, passed)
        _log.info("self_test.passed", version=version, checks=len(checks))
    if settings.telemetry.agent_endpoint and passed.get(f"{key}{TRACES}") == "refused":
        tracing.refused(passed[key])
    return passed[key]


def unsupported(found: Cli, check: "checks.Check") -> Misconfigured:
    """Return the error that says why a CLI is refused, and what to do."""
    return Misconfigured(
        f"{found.path} failed the self-test ({check.name}: {check.detail}): "
        'pip install "samovard[claude]", or set agent.cli to a CLI that passes',
        cause="agent-unsupported",
    )


async def test(
    found: Cli,
    how: launch.Delivery,
    homes: Homes,
    root: Path,
    ledger: Ledger,
    server_id: str,
) -> "tuple[str, list[checks.Check]]":
    """Run the self-test. Return the CLI's version and the checks."""
    async with _under_test(found, how, homes, root, ledger, server_id) as (tests, rest):
        checks = await tests.run()
        if all(check.passed for check in checks):
            checks.append(await rest.traces())
        return tests.version, checks


async def examine(
    found: Cli, how: launch.Delivery, homes: Homes, root: Path
) -> "tuple[str, list[checks.Check]]":
    """Check every behaviour of the CLI that the service relies on.

    Return its version and the checks.
    """
    async with _under_test(found, how, homes, root, NoLedger(), "check") as (tests, rest):
        checks = await tests.run_all()
        checks += await rest.run()
        return tests.version, checks


@asynccontextmanager
async def _under_test(
    found: Cli,
    how: launch.Delivery,
    homes: Homes,
    root: Path,
    ledger: Ledger,
    server_id: str,
) -> "AsyncIterator[tuple[checks.SelfTest, FullSelfTest]]":
    """Yield a CLI and a stand-in for the API that are ready for tests."""
    # Imported here: the stand-in is a web server, which most starts do not need.
    from samovard.agent.selftest import checks
    from samovard.agent.selftest.full import FullSelfTest
    from samovard.agent.selftest.raw_cli import Site
    from samovard.standin import StandIn

    profile = launch.LaunchOptions(
        model="haiku", path=os.defpath, tools=("Bash", "Write"), allowed_tools=("Bash",)
    )
    with tempfile.TemporaryDirectory(prefix="samovar-") as directory:
        variables: Mapping[str, str] = {"KEY": checks.CREDENTIAL}
        async with AsyncExitStack() as stack:
            stand_in = await stack.enter_async_context(StandIn())
            provider, broker = Env("KEY", variables), None
            if how is launch.Delivery.BROKER:
                broker = await stack.enter_async_context(_broker(provider, stand_in.url))
            agents = ClaudeAgents(
                found,
                None,
                homes,
                {checks.PROFILE: profile},
                Delivery(provider, how, stand_in.url, broker=broker),
                ledger,
                server_id,
                1 << 20,
            )
            secret = how is not launch.Delivery.ENVIRONMENT
            tests = checks.SelfTest(agents, stand_in, root, Path(directory), secret=secret)
            site = Site(found, homes, how, stand_in.url, checks.CREDENTIAL)
            yield tests, FullSelfTest(site, stand_in, profile)


def _broker(provider: Provider, url: str) -> "Broker":
    from samovard.agent.broker.broker import Broker
    from samovard.agent.broker.upstream import Upstream

    return Broker(provider, Upstream(url))


class NoLedger:
    """A ledger that records nothing, for processes that their starter waits for."""

    async def add(self, process_id: str, pid: int, start_ticks: int) -> None:
        """Record nothing."""

    async def remove(self, process_id: str) -> None:
        """Record nothing."""


def _schema(path: Path | None) -> str:
    """Return a schema. The CLI ignores one that it cannot use, so its form is checked here."""
    if path is None:
        return ""
    try:
        schema = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw])
    except (OSError, msgspec.DecodeError):
        schema = {}
    if bytes(schema.get("type", b"")) != b'"object"':
        raise Misconfigured(
            f"json_schema: {path} is not a JSON schema of an object", cause="options-refused"
        )
    return msgspec.json.encode(schema).decode()


def _read(path: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _write(path: Path, passed: dict[str, str]) -> None:
    beside = path.with_suffix(".new")
    beside.write_bytes(msgspec.json.encode(passed))
    beside.replace(path)
