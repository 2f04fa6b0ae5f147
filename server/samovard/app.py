"""The service as a whole: builds everything and owns every lifetime, in order.

Knows every part; does the work of none.
"""

import asyncio
import fcntl
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial

from samovard import __version__, auditing, authentication, listening, rules
from samovard.agent import boot, process_tree, procfs, root
from samovard.agent.home import Homes
from samovard.agent.process_tree import Strangers
from samovard.agent.procfs import ResidentMemory
from samovard.agent.removal import Removal
from samovard.audit.trail import Trail
from samovard.bounding import bounding
from samovard.core.operator.controls import Controls
from samovard.core.operator.overview import Overview, ServerInfo
from samovard.core.operator.readiness import Readiness
from samovard.core.operator.snapshot import gauges_of
from samovard.core.pool.background import BackgroundWork
from samovard.core.pool.pool import Pool
from samovard.core.sessions.conversation import Clocks
from samovard.core.sessions.directory import Directory
from samovard.core.sessions.quotas import Quotas
from samovard.core.sessions.sessions import Sessions
from samovard.core.sessions.write_behind import WriteBehindRecords
from samovard.core.turn.retention import EventRetention
from samovard.deleting import Deleting
from samovard.edge import gate, server
from samovard.edge.call_telemetry import CallTelemetry
from samovard.edge.certificates import CannotServe, Certificates
from samovard.edge.health import MAX_WATCHERS, Health
from samovard.edge.identity import Identity
from samovard.edge.pages import Pages
from samovard.edge.pool_service import PoolService
from samovard.edge.revocation import Revocation
from samovard.edge.server import CannotListen
from samovard.edge.session_service import SessionService
from samovard.maintenance import Maintenance
from samovard.secret import CannotRead, pepper, secret
from samovard.settings import Settings
from samovard.shutdown import Shutdown, Times
from samovard.state_lock import CannotStart, state_directory
from samovard.store.deletions import DeletionStore
from samovard.store.keys import KeyStore
from samovard.store.ledger import Ledger
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database
from samovard.store.tenants import TenantStore
from samovard.store.thread import OneThread
from samovard.store.usage import UsageStore
from samovard.telemetry import log
from samovard.telemetry.destination import CannotExport, Export
from samovard.telemetry.export import exporting
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Gauges, Recorder
from samovard.tenant_bounds import TenantBounds

REFUSED = 64  # concurrent calls that are only answered that there are too many
ENDING = 60.0  # seconds that a turn may take beside its wait and its own time
CLOCKS = Clocks(time.time, time.monotonic)


@dataclass(eq=False, slots=True)
class Service:
    """A running service; `address` is the callers' listener, `probes` the one for probes."""

    address: str
    probes: str
    agent: boot.Agent
    sessions: Sessions
    pool: Pool
    maintenance: Maintenance
    overview: Overview
    servers: server.Servers
    settings: Settings
    tenants: TenantBounds

    async def shut_down(self, hurry: asyncio.Event) -> None:
        """Shut down in order, within the time limit; `hurry` ends the wait for turns."""
        leaving = Shutdown(
            self.settings.server,
            self.sessions,
            self.pool,
            self.maintenance,
            self.overview,
            self.servers.public,
            (self.servers.operator, self.servers.probes),
            hurry,
        )
        await leaving.run()


@asynccontextmanager
async def running(
    settings: Settings, *, strangers: Strangers = Strangers.LEAVE
) -> AsyncIterator[Service]:
    """Run the service. Leaving it stops everything at once, unless it was shut down before.

    `strangers` decides on children of this process that no agent of the service owns: they are
    killed where the service is all that this process does. Raise `CannotStart`, and `Misconfigured`
    if the agent cannot be run.
    """
    async with AsyncExitStack() as stack:
        stack.enter_context(_in_a_sentence())
        lock = stack.enter_context(state_directory(settings.directory))
        settings = root.settled(settings)
        process_tree.become_subreaper()
        process_tree.set_undumpable()
        listening.check_addresses(settings)
        server_id = uuid.uuid4().hex
        # Entered first, left last: the end of the service is still reported.
        stack.enter_context(log.identified(server_id))
        recorder = await stack.enter_async_context(_recording(settings, server_id))
        # The next server need not wait until this one has reported its end.
        stack.callback(fcntl.flock, lock, fcntl.LOCK_UN)
        writes = stack.enter_context(OneThread("store"))
        trail = await stack.enter_async_context(
            auditing.auditing(settings, recorder, server_id, __version__, writes)
        )
        told = partial(incident, recorder)
        database = await stack.enter_async_context(
            Database(settings.url, recorder.store_answered, told, writes)
        )
        ledger = Ledger(database, server_id, procfs.boot_id())
        await _kill_leftovers(ledger, recorder)
        homes = stack.enter_context(Homes(settings.root))
        stack.enter_context(root.locked(settings.root))
        not_erased = partial(incident, recorder, "removal.failed")
        removal = stack.enter_context(Removal(homes, not_erased))
        provider = boot.provider_of(settings.credentials)
        told_of = (recorder.model_requested, auditing.connections(trail))
        broker = await stack.enter_async_context(boot.brokering(settings, provider, *told_of))
        agent = await boot.prepare(
            settings, homes, ledger, server_id, removal.remove, provider, broker
        )
        recorder.isolates(agent.isolation.level.value, agent.isolation.network)
        tenants = TenantBounds(settings.tenants)
        background = await stack.enter_async_context(BackgroundWork())
        store = SessionStore(database)
        records = WriteBehindRecords(store, background, recorder)
        directory = Directory(records, background)
        usage = UsageStore(database)
        await usage.settle()
        spent = await usage.spent(CLOCKS.wall())
        stored = await store.count()
        readiness = Readiness(time.monotonic, settings.slots)
        pool = await stack.enter_async_context(
            Pool(
                agent.agents,
                rules.pool_limits(settings, tenants, {tenant for tenant, _ in stored}),
                clock=time.monotonic,
                background=background,
                listener=directory,
                starts=readiness,
                recorder=recorder,
            )
        )
        sessions = Sessions(
            pool,
            directory=directory,
            records=records,
            background=background,
            agents=agent.agents,
            profiles=rules.session_rules(settings),
            clocks=CLOCKS,
            default_profile=settings.pool.default_profile,
            retention=EventRetention(settings.server.event_hold, settings.server.event_hold_total),
            quotas=Quotas(CLOCKS.wall, CLOCKS.monotonic, tenants.quota, spent),
            bounds=rules.stream_bounds(settings.server),
            recorder=recorder,
        )
        for (tenant, profile), count in stored.items():
            pool.counters.of(tenant, profile).sessions = count
        stack.callback(sessions.release)
        certificates = listening.certificates(settings, recorder)
        revocation = Revocation(TenantStore(database), sessions, time.time)
        deletions = DeletionStore(database)
        await deletions.restarted()
        await revocation.look()  # before the first call: who is disabled stays so
        bounds = stack.enter_context(bounding(settings, agent, homes, directory, pool, recorder))
        overview = _overview(server_id, agent, pool, sessions)
        health = Health()
        maintenance = Maintenance(
            server_id,
            strangers,
            agent,
            pool,
            background,
            sessions,
            database,
            readiness,
            health,
            recorder,
            revocation,
            Deleting(deletions, revocation, sessions, pool),
            trail,
            partial(_gauges, overview, settings, removal, certificates, trail),
            bounds,
            certificates,
        )
        controls = Controls(pool, sessions, directory, records)
        servers = _servers(
            settings, sessions, overview, controls, health, database, revocation, recorder, trail
        )
        at = await listening.listen(settings, certificates, servers)
        recorder.listens_on(at.callers)
        try:
            async with maintenance.running():
                yield Service(
                    *at, agent, sessions, pool, maintenance, overview, servers, settings, tenants
                )
        finally:
            maintenance.leaving()
            health.close()
            overview.close()
            sessions.refuse_new()
            await servers.stop()


@contextmanager
def _in_a_sentence() -> Iterator[None]:
    """Raise `CannotStart` if an address, the TLS files or the audit log cannot be used."""
    try:
        yield
    except (CannotListen, CannotServe, CannotRead, auditing.CannotAudit) as error:
        raise CannotStart(str(error)) from error


async def _kill_leftovers(ledger: Ledger, recorder: Recorder) -> None:
    earlier = await ledger.earlier()
    rows = [process_tree.LedgerRow(e.pid, e.boot_id, e.ticks) for e in earlier.entries]
    found = await process_tree.kill_leftovers(earlier.server_ids, rows)
    if found.killed:
        left = len(found.left)
        incident(recorder, "leftovers.killed", killed=found.killed, left=left)
    await ledger.begin(time.time())


@asynccontextmanager
async def _recording(settings: Settings, server_id: str) -> AsyncIterator[Recorder]:
    try:
        async with exporting(_export(settings, server_id)) as recorder:
            yield recorder
    except CannotExport as error:
        raise CannotStart(str(error)) from error


def _export(settings: Settings, server_id: str) -> Export:
    telemetry, budget = settings.telemetry, settings.server.stop_budget
    return Export(
        server_id,
        __version__,
        telemetry.endpoint,
        telemetry.protocol,
        telemetry.sample_ratio,
        prometheus=telemetry.prometheus_listen,
        tools=frozenset(tool for p in settings.profiles.values() for tool in p.tools),
        tenants=frozenset(telemetry.tenants),
        callers=telemetry.caller_attributes,
        old_names=telemetry.old_names,
        flush=budget - Times.within(budget).tell,
    )


def _overview(server_id: str, agent: boot.Agent, pool: Pool, sessions: Sessions) -> Overview:
    resident = ResidentMemory(time.monotonic)
    walls = (agent.isolation.level.value, agent.isolation.network)
    about = ServerInfo(server_id, __version__, *walls, time.time(), lambda: agent.agents.version)
    return Overview(about, pool, sessions, CLOCKS, resident.of)


async def _gauges(
    overview: Overview,
    settings: Settings,
    removal: Removal,
    certificates: Certificates | None,
    trail: Trail,
) -> Gauges:
    return gauges_of(
        await overview.look(),
        settings.profiles,
        removal.pending,
        certificates.expires_in if certificates else None,
        audit_down=trail.down,
    )


def _servers(
    settings: Settings,
    sessions: Sessions,
    overview: Overview,
    controls: Controls,
    health: Health,
    database: Database,
    revocation: Revocation,
    recorder: Recorder,
    trail: Trail,
) -> server.Servers:
    """Make the servers for callers, for the operator and for probes."""
    reflects = settings.server.public_reflection or "none" in settings.auth.methods
    pages = Pages(secret(settings.auth.page_key or settings.directory / "page_key"), time.time)
    callers, operators = authentication.identities(
        settings.auth, KeyStore(database), lambda: pepper(settings)
    )

    def behind(way_in: gate.Gate) -> server.Interceptors:
        return [CallTelemetry(recorder, CLOCKS, way_in.methods), gate.Guard(), way_in]

    table = gate.public_table(reflects=reflects, health=settings.server.public_health)
    return server.Servers(
        server.public(
            SessionService(sessions, UsageStore(database), pages),
            health,
            behind(
                gate.Gate(callers, table, revocation, gate.public_open(), *_calls(settings), trail)
            ),
            reflects=reflects,
            bounds=_bounds(settings),
        ),
        server.operator(
            PoolService(overview, controls, UsageStore(database), pages),
            health,
            behind(gate.Gate(operators, gate.operator_table(), revocation, trail=trail)),
        ),
        server.probes(
            health, behind(gate.Gate(Identity([]), gate.HEALTH, revocation, gate.probes_open()))
        ),
    )


def _calls(settings: Settings) -> tuple[int, int]:
    """Return how many concurrent calls one tenant may have, and all tenants together."""
    return settings.tenant_calls, settings.tenant_calls + MAX_WATCHERS


def _bounds(settings: Settings) -> server.TransportBounds:
    longest = max(profile.turn_timeout for profile in settings.profiles.values())
    return server.TransportBounds(
        _calls(settings)[1] + REFUSED,
        settings.server.connections,
        settings.server.max_connection_age,
        settings.pool.max_wait + longest + ENDING,
    )
