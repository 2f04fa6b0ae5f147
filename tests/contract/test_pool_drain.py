"""`DrainPool` over a real channel, as `pool.proto` promises it."""

from pathlib import Path
from typing import Any

from fake_claude import fake
from fake_claude import verbs as v
from support.operator_client import pools, processes, rest, told
from support.service import Running, until

import samovar
from samovar.v1 import pool_pb2 as pb


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
            assert one.state == pb.ProcessInfo.STATE_LEASED
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
