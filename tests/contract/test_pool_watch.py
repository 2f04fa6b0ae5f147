"""`WatchPools` over a real channel, as `pool.proto` promises it."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from google.protobuf.duration_pb2 import Duration
from support.operator_client import processes, reason, rest, told
from support.service import Running

import samovar
from samovar.v1 import pool_pb2 as pb
from samovard import __version__

SHORT = Duration(nanos=100_000_000)


def test_a_watch_sends_a_snapshot_at_once_and_then_one_every_interval(directory: Path) -> None:
    """What changes between two is in the second; it goes on until the caller cancels."""

    async def story(run: Running, stub: Any) -> None:
        begin = time.time_ns()
        call = stub.WatchPools(pb.WatchPoolsRequest(interval=SHORT))
        first = await call.read()
        assert not first.processes
        await run.client.ask("Say x")
        times = [first.time.ToNanoseconds()]
        cold = 0
        while not cold:  # in some before, its process is still starting
            snapshot = await call.read()
            times.append(snapshot.time.ToNanoseconds())
            cold = sum(pool.counters.turns_cold for pool in snapshot.pools)
        assert (cold, len(snapshot.processes)) == (1, 1)
        # Each is taken when it is due or later, counted from the call: however late any is,
        # there are no more than intervals have begun. The clocks may differ by less than one.
        assert len(times) <= (times[-1] - begin) / SHORT.ToNanoseconds() + 2
        assert times == sorted(times)
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
            assert one.state == pb.ProcessInfo.STATE_LEASED
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
