"""Make `claude` processes: the core's `Agents` for this machine.

Knows the profiles, the CLI, the sessions' directories and the credentials. Knows nothing of
sessions or turns.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, replace
from subprocess import Popen
from typing import TYPE_CHECKING, Protocol

import structlog

from samovard.agent import binary as programs
from samovard.agent import launch, machine, mcp, process_tree, procfs
from samovard.agent.addresses import Addresses, Reach
from samovard.agent.binary import Cli
from samovard.agent.capabilities import Expected
from samovard.agent.credentials import Credential, Provider
from samovard.agent.home import Homes
from samovard.agent.isolation.walls import Walls
from samovard.agent.process import AgentProcess
from samovard.agent.tracing import Tracing
from samovard.core.errors import Misconfigured, NoProcess
from samovard.core.process import Launch, ProcessListener

if TYPE_CHECKING:  # what it is made of is imported only where there is one
    from samovard.agent.broker.broker import Broker

Remove = Callable[[str], Awaitable[None]]

#: Without a base URL the CLI contacts it before it answers (claude 2.1.330).
HINT = (
    "the CLI waits for GET /api/claude_code/settings at the model's API: let agents reach it "
    "(credentials.proxy, credentials.ca_bundle), or set credentials.delivery to broker"
)

_log = structlog.get_logger("samovard.agents")


class Ledger(Protocol):
    """The record of this machine's processes that survives a restart of samovard."""

    async def add(self, process_id: str, pid: int, start_ticks: int) -> None:
        """Record a process."""

    async def remove(self, process_id: str) -> None:
        """Remove the record of a process."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a child gets its credential, and the API's address; empty for the CLI's default.

    With a `broker`, the child is given an address of its own there.
    """

    provider: Provider | None
    how: launch.Delivery = launch.Delivery.DESCRIPTOR
    upstream: str = ""
    egress: launch.Egress = launch.DIRECT
    broker: "Broker | None" = None


class ClaudeAgents:
    """Factory of processes that run one CLI, each in the directory of its own session."""

    def __init__(
        self,
        cli: Cli,
        version: str | None,
        homes: Homes,
        profiles: Mapping[str, launch.LaunchOptions],
        delivery: Delivery,
        ledger: Ledger,
        server_id: str,
        max_line_bytes: int,
        tracing: Tracing | None = None,
        remove: Remove | None = None,
        walls: Mapping[str, Walls] | None = None,
    ) -> None:
        self._cli = cli
        self._version = version
        self._homes = homes
        self._profiles = profiles
        self._delivery = delivery
        self._ledger = ledger
        self._server_id = server_id
        self.max_line_bytes = max_line_bytes
        self.tracing = tracing or Tracing()
        self._remove = remove
        self._walls = walls or {}  # of each profile; none where there is no entry
        self._told_of_wait = False
        broker = delivery.broker
        self._addresses = None if broker is None else Addresses(broker)

    @property
    def cli(self) -> Cli:
        """The CLI that new processes run."""
        return self._cli

    @property
    def version(self) -> str:
        """The version of the CLI that new processes run; empty if any version is accepted."""
        return self._version or ""

    def take(self, cli: Cli, version: str) -> None:
        """Run another CLI from now on. It must have passed the self-test."""
        self._cli, self._version = cli, version

    def create(self, start: Launch, listener: ProcessListener) -> AgentProcess:
        """Return a process that is not started yet."""
        return AgentProcess(start, listener, self)

    async def remove_home(self, home: str) -> None:
        """Remove a session's directory; without a remover, erase it before returning."""
        if self._remove is not None:
            await self._remove(home)
        else:
            await asyncio.to_thread(self._homes.remove, home)

    # The methods of `Host`.

    async def spawn(self, start: Launch) -> Popen[bytes]:
        """Spawn the child of a launch."""
        machine.spare_descriptors()
        await self.check_cli()
        profile, walls = self._profiles[start.profile], self._walls_of(start)
        arguments = launch.arguments(profile, start)
        handing_over = await self._handing_over(start)
        home = await asyncio.to_thread(self._homes.prepare, start.home)
        directory = self._homes.open_work(start.home)
        try:
            async with self._reaching(start, walls) as reach:
                if profile.mcp:
                    servers = mcp.config(profile.mcp, reach.url)
                    await asyncio.to_thread(self._homes.put, start.home, mcp.FILE, servers)
                    arguments.append(f"--mcp-config={walls.inside(home).config / mcp.FILE}")
                with (
                    handing_over as handover,
                    walls.around(home, reach.port, reach.passed) as enclosure,
                ):
                    environ = launch.environment(
                        profile,
                        start,
                        walls.inside(home),
                        {
                            **handover.variables,
                            **self._traced(start, reach),
                            **self._egress(profile, reach).variables(*reach.near),
                        },
                        server_id=self._server_id,
                        base_url=reach.url,
                    )
                    # On the loop's own thread, which never ends: a child dies with the thread that
                    # spawned it.
                    return launch.spawn(
                        self._cli.path,
                        arguments,
                        environ,
                        directory=directory,
                        descriptors=handover.descriptors,
                        limits=launch.limits(profile, nested=walls.nested),
                        enclosure=enclosure,
                    )
        finally:
            os.close(directory)

    def nested(self, start: Launch) -> bool:
        """Return True if the agent of a launch has a PID namespace."""
        return self._walls_of(start).nested

    def _walls_of(self, start: Launch) -> Walls:
        return self._walls.get(start.profile, Walls())

    def _egress(self, profile: launch.LaunchOptions, reach: Reach) -> launch.Egress:
        """Return how the child's tools reach the network: offline, by the broker's proxy if at
        all.
        """
        egress = self._delivery.egress
        return replace(egress, proxy=reach.proxy, no_proxy=()) if profile.offline else egress

    @asynccontextmanager
    async def _reaching(self, start: Launch, walls: Walls) -> AsyncIterator[Reach]:
        """Yield how a child reaches the API; an address of the broker lasts until it has exited."""
        profile = self._profiles[start.profile]
        if profile.cloud is not None:
            yield Reach("")
        elif self._addresses is None:
            yield Reach(self._delivery.upstream)
        else:
            reaching = self._addresses.reaching(start, alone=walls.alone, hosts=profile.hosts)
            async with reaching as reach:
                yield reach

    def works(self, start: Launch, *, working: bool) -> None:
        """Let the child reach the API while it works, and then no more."""
        if self._addresses is not None:
            self._addresses.works(start, working=working)

    def exited(self, start: Launch) -> None:
        """Close the child's address, if it has one."""
        if self._addresses is not None:
            self._addresses.exited(start)

    async def check_cli(self) -> None:
        """Raise `NoProcess` (start-failed) if the CLI is no longer the one that was tested."""
        known = await asyncio.to_thread(programs.as_known, self._cli)
        if known is None:
            raise NoProcess(
                "the CLI was replaced and is not tested yet", cause="start-failed", retry_after=1.0
            )
        self._cli = known

    def _traced(self, start: Launch, reach: Reach) -> dict[str, str]:
        if not self.tracing.on(self.version):
            return {}
        # Where there is a broker, spans go through it: the child may reach nothing else. One of a
        # cloud has no address there.
        near = "" if self._addresses is None else reach.url
        return self.tracing.variables(start.process_id, start.tenant, start.traceparent, near)

    async def _handing_over(self, start: Launch) -> AbstractContextManager[launch.Handover]:
        """Return what gives a child its credential, or its cloud's variables instead."""
        cloud = self._profiles[start.profile].cloud
        if cloud is not None:
            return nullcontext(launch.Handover(await asyncio.to_thread(cloud.variables)))
        credential = await self._credential(start.tenant)
        return launch.handed_over(credential, self._delivery.how)

    async def _credential(self, tenant: str) -> Credential:
        if self._delivery.provider is None:
            raise Misconfigured("no credential is configured", cause="credential-missing")
        return await self._delivery.provider.get(tenant)

    def marker(self, start: Launch) -> str:
        """Return the marker of a launch's process tree."""
        return self.marker_of(start.process_id)

    def marker_of(self, process_id: str) -> str:
        """Return the marker of a process's tree."""
        return process_tree.marker(self._server_id, process_id)

    def json_schema(self, start: Launch) -> str:
        """Return the JSON schema of the profile's results."""
        return self._profiles[start.profile].json_schema

    def expected(self, start: Launch) -> Expected:
        """Return what the agent must answer to `initialize`."""
        cloud = self._profiles[start.profile].cloud
        named = "" if cloud is None else cloud.name
        return Expected(self._version, "default" if start.ask else "dontAsk", named)

    def waits(self, start: Launch) -> None:
        """Warn that the start may be waiting for the CLI's own API; once until a start is quick
        again.
        """
        api = self._profiles[start.profile].cloud is None
        waits = api and not self._delivery.upstream and self._delivery.broker is None
        if not self._told_of_wait and waits:
            self._told_of_wait = True
            _log.warning("start.waits", process_id=start.process_id, hint=HINT)

    def answered(self, *, waited: bool) -> None:
        """Called after each start that answered."""
        self._told_of_wait = waited and self._told_of_wait

    async def spawned(self, start: Launch, pid: int) -> None:
        """Write the child into the ledger."""
        await self._ledger.add(start.process_id, pid, procfs.start_ticks(pid))

    async def has_transcript(self, start: Launch) -> bool:
        """Return True if there is a transcript; False also if the machine cannot look for it."""
        look = self._homes.has_transcript
        try:
            return await asyncio.to_thread(look, start.home, start.agent_session)
        except OSError:
            return False

    async def gone(self, start: Launch) -> None:
        """Remove the child from the ledger."""
        await self._ledger.remove(start.process_id)
