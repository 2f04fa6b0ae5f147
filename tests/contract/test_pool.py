"""The operator's service over a real channel, as `pool.proto` promises it."""

import asyncio
import resource
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from google.rpc import error_details_pb2, status_pb2
from support.operator_client import operating, operator, pools, processes, reason, rest, told
from support.otlp_collector import fetched, free
from support.service import Running, key_for, prepare, serving, until
from support.timeouts import BOUND

import samovar
from samovar.v1 import pool_pb2 as pb

METHODS = ("ListPools", "ListProcesses", "DrainPool", "WatchPools", "ListUsage")
KEYS: dict[str, Any] = {"auth": {"methods": ["api_key"]}}
INFO = pb.ProcessInfo


async def called(stub: Any, method: str, key: str = "") -> tuple[str, dict[str, str]]:
    """Calls a method as well as may be; gives the reason of its failure, or its code, and why."""
    request = getattr(pb, f"{method}Request")(tenant_id="acme")
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    call = getattr(stub, method)(request, metadata=metadata, timeout=BOUND)
    try:
        await (call.read() if method == "WatchPools" else call)
    except grpc.aio.AioRpcError as error:
        return reason(error)
    call.cancel()
    return "", {}


async def tenants(directory: Path, *names: str) -> dict[str, str]:
    return {name: await key_for(directory, name) for name in names}


async def asked(run: Running, key: str, *sessions: str, **options: Any) -> None:
    async with samovar.AsyncClient(run.address, api_key=key) as client:
        for session in sessions:
            await client.ask("Say x", session=session, **options)


def test_it_needs_the_scope_admin(directory: Path) -> None:
    """On the socket, too: a tenant's key lacks the scope, and without a key it is refused."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        acme = await key_for(directory, "acme")
        admin = await key_for(directory, "ops", "admin")
        async with serving(directory, binary=binary, **KEYS), operator(directory) as stub:
            for method in METHODS:
                assert await called(stub, method) == ("CREDENTIAL_INVALID", {})
                assert await called(stub, method, acme) == ("SCOPE_MISSING", {"scope": "admin"})
                assert await called(stub, method, admin) == ("", {})

    asyncio.run(story())


def test_it_is_served_on_an_address_of_its_own(directory: Path) -> None:
    """Where callers are, no method of it exists, whoever asks."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        admin = await key_for(directory, "ops", "admin")
        async with serving(directory, binary=binary, **KEYS) as run:
            async with operating(run.address) as stub:
                for method in METHODS:
                    assert await called(stub, method, admin) == ("UNIMPLEMENTED", {})

    asyncio.run(story())


BAD: tuple[tuple[str, dict[str, Any], set[str]], ...] = (
    ("ListPools", {"page_size": -1, "tenant_id": "No"}, {"page_size", "tenant_id"}),
    ("ListPools", {"page_token": "x"}, {"page_token"}),
    ("ListProcesses", {"page_size": -1, "tenant_id": "a b"}, {"page_size", "tenant_id"}),
    ("ListUsage", {"page_size": -1, "first_day": "today"}, {"page_size", "first_day"}),
    ("ListUsage", {"first_day": "2026-02-30", "last_day": "26-1-1"}, {"first_day", "last_day"}),
    ("ListUsage", {"first_day": "2024-01-01", "last_day": "2025-01-01"}, {"last_day"}),
    ("DrainPool", {}, {"tenant_id"}),
    ("DrainPool", {"tenant_id": "a_b", "profile": "*"}, {"tenant_id", "profile"}),
    ("WatchPools", {"interval": {"nanos": 99_000_000}, "max_rows": -1}, {"interval", "max_rows"}),
    ("WatchPools", {"interval": {"seconds": 61}, "tenant_id": "A"}, {"interval", "tenant_id"}),
)


def test_a_bad_request_is_told_with_every_bad_field(directory: Path) -> None:
    """REQUEST_INVALID names them all at once, as in `Session`."""

    async def story(run: Running, stub: Any) -> None:
        for method, fields, bad in BAD:
            call = getattr(stub, method)(getattr(pb, f"{method}Request")(**fields))
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await (call.read() if method == "WatchPools" else call)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason(error.value)[0] == "REQUEST_INVALID"
            trailing: Any = error.value.trailing_metadata()
            details = dict(trailing)["grpc-status-details-bin"]
            request = error_details_pb2.BadRequest()
            status_pb2.Status.FromString(details).details[1].Unpack(request)
            assert {violation.field for violation in request.field_violations} == bad

    told(directory, story)


def test_a_process_is_listed_as_its_turns_told(directory: Path) -> None:
    """One name and pid in both; tenant, profile, session, turns, version and times are right."""

    async def story(run: Running, stub: Any) -> None:
        answers = [await run.client.ask("Say x", session="s", profile="tools") for _ in range(2)]
        await rest(run)
        (one,) = await processes(stub)
        started = answers[1].started
        assert (one.process_id, one.pid) == (started.process_id, started.pid)
        assert (one.tenant_id, one.profile, one.session_id) == ("local", "tools", "s")
        assert (one.state, one.turn_count) == (INFO.STATE_IDLE, 2)
        assert one.agent_version == run.service.agent.version
        assert one.create_time.ToNanoseconds() < one.update_time.ToNanoseconds()
        assert await processes(stub) == [one]

    told(directory, story)


def test_a_process_that_serves_a_turn_is_leased(directory: Path) -> None:
    """So it counts in its pool, until it is idle again."""

    async def story(run: Running, stub: Any) -> None:
        async with run.client.send(fake(v.text("x"), v.hang())) as turn:
            await anext(turn)
            (one,) = await processes(stub)
            (pool,) = await pools(stub)
            assert one.state == INFO.STATE_LEASED
            assert (pool.processes_leased, pool.processes_idle) == (1, 0)

    told(directory, story)


def test_processes_are_listed_oldest_first_by_pages(directory: Path) -> None:
    """Pages hold each once; a token is good for what it was given for, and nothing else."""

    async def story(run: Running, stub: Any) -> None:
        for session in "abc":
            await run.client.ask("Say x", session=session)
        names, token = [], ""
        for _ in range(3):
            request = pb.ListProcessesRequest(page_size=1, page_token=token)
            page = await stub.ListProcesses(request)
            names += [process.session_id for process in page.processes]
            token = page.next_page_token or token
        assert (names, page.next_page_token) == (["a", "b", "c"], "")
        for other in (
            stub.ListProcesses(pb.ListProcessesRequest(page_token=token, tenant_id="acme")),
            stub.ListPools(pb.ListPoolsRequest(page_token=token)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await other
            assert reason(error.value)[0] == "REQUEST_INVALID"

    told(directory, story, pool={"slots": 8, "max_starting": 1})


def test_pools_are_of_one_tenant_with_one_profile(directory: Path) -> None:
    """Each has its own counts; a filter leaves one tenant's, and pages hold each once."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        keys = await tenants(directory, "acme", "blue")
        admin = await key_for(directory, "ops", "admin")
        options = {"metadata": (("authorization", f"Bearer {admin}"),)}
        async with serving(directory, binary=binary, **KEYS) as run, operator(directory) as stub:
            await asked(run, keys["acme"], "a", "b", "a")
            await asked(run, keys["acme"], "c", profile="tools")
            await asked(run, keys["blue"], "a")
            await rest(run)
            found: list[pb.PoolInfo] = []
            token = ""
            for _ in range(3):
                request = pb.ListPoolsRequest(page_size=1, page_token=token)
                page = await stub.ListPools(request, **options)
                found += page.pools
                token = page.next_page_token
            counts = [(p.tenant_id, p.profile, p.processes_idle) for p in found]
            assert counts == [("acme", "default", 2), ("acme", "tools", 1), ("blue", "default", 1)]
            cold = [(p.counters.turns_cold, p.counters.turns_warm) for p in found]
            assert cold == [(2, 1), (1, 0), (1, 0)]
            one = await stub.ListPools(pb.ListPoolsRequest(tenant_id="blue"), **options)
            assert [pool.tenant_id for pool in one.pools] == ["blue"]

    asyncio.run(story())


def test_a_pool_tells_who_waits_and_for_how_long(directory: Path) -> None:
    """`max_wait` grows while the first of them waits."""

    async def story(run: Running, stub: Any) -> None:
        async with run.client.send(fake(v.hang()), session="busy") as busy:
            await anext(busy)
            waits = asyncio.create_task(run.client.ask("Say x", session="late"))
            await until(lambda: run.service.pool.waiting == 1)
            (before,) = await pools(stub)
            (after,) = await pools(stub)
            assert (before.turns_waiting, before.counters.turns_queued) == (1, 1)
            assert 0 < before.max_wait.ToNanoseconds() < after.max_wait.ToNanoseconds()
        await waits
        (now,) = await pools(stub)
        assert (now.turns_waiting, now.max_wait.ToNanoseconds()) == (0, 0)
        assert now.counters.turns_queued == 2
        assert now.counters.wait_time.ToNanoseconds() > after.max_wait.ToNanoseconds()

    told(directory, story, pool={"slots": 1})


def test_sessions_of_earlier_servers_are_suspended(directory: Path) -> None:
    """They are counted from the store, until a process serves them again."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            for session in ("a", "b"):
                await run.client.ask("Say x", session=session)
        async with serving(directory, fake=True) as run, operator(directory) as stub:
            (pool,) = await pools(stub)
            assert (pool.sessions_suspended, pool.counters.turns_cold) == (2, 0)
            await run.client.ask("Say x", session="a")
            (pool,) = await pools(stub)
            assert (pool.sessions_suspended, pool.counters.turns_resumed) == (1, 1)

    asyncio.run(story())


def test_memory_is_that_of_the_process_and_its_children(directory: Path) -> None:
    """A process has some, its pool has all of it, and so has the server."""

    async def story(run: Running, stub: Any) -> None:
        for session in ("a", "b"):
            await run.client.ask("Say x", session=session)
        snapshot = await stub.WatchPools(pb.WatchPoolsRequest()).read()
        sizes = [process.resident_bytes for process in snapshot.processes]
        assert min(sizes) > 1 << 20
        assert snapshot.pools[0].resident_bytes == snapshot.server.resident_bytes == sum(sizes)

    told(directory, story)


def test_the_gauge_and_the_call_tell_the_same_memory(directory: Path) -> None:
    """Both have that of a child that an agent left behind."""
    address = free()

    async def story(run: Running, stub: Any) -> None:
        beside = directory / "pid"
        await run.client.ask(fake(v.grandchild(tell=beside)))
        await rest(run)
        (process,) = run.service.pool
        pids = process.handle.pid, int(beside.read_text())
        async with asyncio.timeout(BOUND):
            while True:
                (listed,) = await processes(stub)
                page = await asyncio.to_thread(fetched, address)
                gauge = page['samovar_process_memory_bytes{state="idle"}']
                # Alike once the child has become what it is and holds its memory.
                both = pytest.approx(sum(resident(pid) for pid in pids), rel=0.02)
                if gauge == listed.resident_bytes == both:
                    break

    told(directory, story, telemetry={"prometheus_listen": address})


def resident(pid: int) -> int:
    """Return the bytes of memory that one process has, without those of its children."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
