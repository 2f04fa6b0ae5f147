"""The operator's service over a real channel, as `pool.proto` promises it."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from service import Running, key_for, prepare, serving, until

import samovar
from samovar.v1 import pool_pb2 as pb
from samovar.v1 import pool_pb2_grpc
from samovard import __version__
from samovard.core.lifecycle import State

METHODS = ("ListPools", "ListProcesses", "DrainPool", "WatchPools")
KEYS: dict[str, Any] = {"auth": {"methods": ["api_key"]}}
INFO = pb.ProcessInfo
SHORT = Duration(nanos=100_000_000)


@asynccontextmanager
async def operating(address: str) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(address) as channel:
        yield pool_pb2_grpc.PoolStub(channel)


def operator(directory: Path) -> Any:
    return operating(f"unix:{directory / 'operator.sock'}")


Story = Callable[[Running, Any], Coroutine[Any, Any, None]]


def told(directory: Path, story: Story, *, fake: bool = True, **sections: Any) -> None:
    """Tells a story of a running service and its operator."""

    async def tell() -> None:
        async with serving(directory, fake=fake, **sections) as run, operator(directory) as stub:
            await story(run, stub)

    asyncio.run(tell())


async def called(stub: Any, method: str, key: str = "") -> tuple[str, dict[str, str]]:
    """Calls a method as well as may be; gives the reason of its failure, or its code, and why."""
    request = getattr(pb, f"{method}Request")(tenant_id="acme")
    metadata = (("authorization", f"Bearer {key}"),) if key else ()
    call = getattr(stub, method)(request, metadata=metadata, timeout=10)
    try:
        await (call.read() if method == "WatchPools" else call)
    except grpc.aio.AioRpcError as error:
        return reason(error)
    call.cancel()
    return "", {}


def reason(error: grpc.aio.AioRpcError) -> tuple[str, dict[str, str]]:
    trailing: Any = error.trailing_metadata() or ()
    details = dict(trailing).get("grpc-status-details-bin")
    if details is None:
        return error.code().name, {}
    info = error_details_pb2.ErrorInfo()
    status_pb2.Status.FromString(details).details[0].Unpack(info)
    return info.reason, dict(info.metadata)


async def processes(stub: Any, **fields: Any) -> list[pb.ProcessInfo]:
    return list((await stub.ListProcesses(pb.ListProcessesRequest(**fields))).processes)


async def pools(stub: Any, **fields: Any) -> list[pb.PoolInfo]:
    return list((await stub.ListPools(pb.ListPoolsRequest(**fields))).pools)


async def tenants(directory: Path, *names: str) -> dict[str, str]:
    return {name: await key_for(directory, name) for name in names}


async def asked(run: Running, key: str, *sessions: str, **options: Any) -> None:
    async with samovar.AsyncClient(run.address, api_key=key) as client:
        for session in sessions:
            await client.ask("Say x", session=session, **options)


async def rest(run: Running) -> None:
    """Waits until every process is idle: a turn is over a little before."""
    await until(lambda: all(process.state is State.IDLE for process in run.service.pool))


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
            assert (before.turns_waiting, before.counters.turns_queued) == (1, 2)
            assert 0 < before.max_wait.ToNanoseconds() < after.max_wait.ToNanoseconds()
        await waits
        (now,) = await pools(stub)
        assert (now.turns_waiting, now.max_wait.ToNanoseconds()) == (0, 0)
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


def test_a_watch_sends_a_snapshot_at_once_and_then_one_every_interval(directory: Path) -> None:
    """What changes between two is in the second; it goes on until the caller cancels."""

    async def story(run: Running, stub: Any) -> None:
        call = stub.WatchPools(pb.WatchPoolsRequest(interval=SHORT))
        first = await call.read()
        assert not first.processes
        await run.client.ask("Say x")
        times = [first.time.ToNanoseconds()]
        while not (snapshot := await call.read()).processes:
            times.append(snapshot.time.ToNanoseconds())
        times.append(snapshot.time.ToNanoseconds())
        assert snapshot.pools[0].counters.turns_cold == 1
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert min(gaps) > 50_000_000
        call.cancel()

    told(directory, story)


def test_a_watch_tells_of_the_server(directory: Path) -> None:
    """Versions, isolation, bounds and what is there: who watches needs no second call."""

    async def story(run: Running, stub: Any) -> None:
        await run.client.ask("Say x")
        snapshot = await stub.WatchPools(pb.WatchPoolsRequest()).read()
        server = snapshot.server
        assert len(server.server_id) == 32
        assert (server.server_version, server.isolation) == (__version__, "none")
        assert server.agent_version == run.service.agent.version
        assert (server.processes, server.max_processes, server.draining) == (1, 8, False)
        assert server.start_time.ToNanoseconds() < snapshot.time.ToNanoseconds()
        assert server.max_resident_bytes == 0

    told(directory, story)


def test_a_watch_shows_the_rows_that_matter_most(directory: Path) -> None:
    """Of each kind at most so many: processes longest in their state first, of one tenant."""

    async def story(run: Running, stub: Any) -> None:
        for session in ("a", "b", "a"):
            await run.client.ask("Say x", session=session)
            await rest(run)
        snapshot = await stub.WatchPools(pb.WatchPoolsRequest(max_rows=1)).read()
        assert [process.session_id for process in snapshot.processes] == ["b"]
        assert snapshot.server.processes == 2
        other = await stub.WatchPools(pb.WatchPoolsRequest(tenant_id="acme")).read()
        assert (len(other.pools), len(other.processes)) == (0, 0)

    told(directory, story)


def test_a_watch_sees_the_server_go_and_is_told_when_it_is_gone(directory: Path) -> None:
    """While turns may still end, snapshots say that it drains; then the stream is DRAINING."""

    async def story(run: Running, stub: Any) -> None:
        call = stub.WatchPools(pb.WatchPoolsRequest(interval=SHORT))
        await call.read()
        async with run.client.send(fake(v.hang())) as turn:
            await anext(turn)
            hurry = asyncio.Event()
            leaving = asyncio.create_task(run.service.shut_down(hurry))
            while not (await call.read()).server.draining:
                continue
            (one,) = await processes(stub)  # the operator may still ask
            assert one.state == INFO.STATE_LEASED
            hurry.set()
            with pytest.raises(grpc.aio.AioRpcError) as error:
                while True:
                    await call.read()
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE
            assert reason(error.value)[0] == "DRAINING"
            with pytest.raises(samovar.SamovarError):
                async for _ in turn:
                    continue
        await leaving

    told(directory, story)


def test_drain_replaces_idle_processes_at_once_and_sessions_lose_nothing(directory: Path) -> None:
    """On the real CLI: the next turn resumes on another process and knows what was said."""

    async def story(run: Running, stub: Any) -> None:
        first = await run.client.ask("Say canary")
        await rest(run)
        answer = await stub.DrainPool(pb.DrainPoolRequest(tenant_id="local"))
        assert (answer.stopped, answer.marked) == (1, 0)
        again = await run.client.ask("Say again")
        assert again.started.start_mode is samovar.StartMode.RESUMED
        assert again.started.pid != first.started.pid
        assert "canary" in str(run.asked()[-1])
        (pool,) = await pools(stub)
        assert (pool.counters.processes_retired, pool.counters.processes_died) == (1, 0)

    told(directory, story, fake=False)


def test_drain_replaces_leased_processes_when_their_turn_ends(directory: Path) -> None:
    """The turn goes on as if nothing were; the process ends behind it."""

    async def story(run: Running, stub: Any) -> None:
        async with run.client.send(
            fake(v.text("a"), v.gate(directory / "go"), v.text("b"))
        ) as turn:
            await anext(turn)
            answer = await stub.DrainPool(pb.DrainPoolRequest(tenant_id="local"))
            assert (answer.stopped, answer.marked) == (0, 1)
            (one,) = await processes(stub)
            assert one.state == INFO.STATE_LEASED
            (directory / "go").touch()
            *_, last = [event async for event in turn]
            assert isinstance(last, samovar.TurnFinished)
            assert last.result == "ab"
        await until(lambda: len(run.service.pool) == 0)

    told(directory, story)


def test_drain_done_twice_equals_once(directory: Path) -> None:
    """A tenant without processes has none to replace, and so has one that nobody knows."""

    async def story(run: Running, stub: Any) -> None:
        await run.client.ask("Say x")
        await rest(run)
        request = pb.DrainPoolRequest(tenant_id="local")
        assert (await stub.DrainPool(request)).stopped == 1
        assert await stub.DrainPool(request) == pb.DrainPoolResponse()
        unknown = pb.DrainPoolRequest(tenant_id="nobody")
        assert await stub.DrainPool(unknown) == pb.DrainPoolResponse()

    told(directory, story)
