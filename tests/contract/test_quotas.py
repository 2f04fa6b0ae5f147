"""The quotas of tenants over a real channel, on the real CLI, and what callers are told."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.service import Running, raw, serving, simple, until
from support.timeouts import BOUND

import samovar
from samovar import errors
from samovar.v1 import session_pb2 as pb
from samovard.core.sessions.quotas import DAY, MINUTE


async def refused(run: Running, session: str = "") -> tuple[str, float]:
    """Return the cause for which a turn is refused, and after how many seconds to come again."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:  # the client would come again by itself
        await raw(run.stub, simple("Say x", session_id=session, spec=pb.SessionSpec()))
    error = errors.of(raised.value)
    assert isinstance(error, samovar.QuotaExceeded)
    assert not error.prompt_written
    assert error.retry_delay is not None
    return error.metadata["cause"], error.retry_delay


def test_turns_of_a_minute_are_bounded(directory: Path) -> None:
    """In all sessions of the tenant together."""

    async def story() -> None:
        tenants = {"default": {"turns_per_minute": 1}}
        async with serving(directory, tenants=tenants) as run:
            begun = asyncio.ensure_future(run.client.ask("Say x", session="a"))
            await until(lambda: run.service.sessions.running)
            cause, seconds = await refused(run, "b")
            assert (await begun).text == "x"
            assert cause == "turns-per-minute"
            assert 0 < seconds <= MINUTE
            assert [info.session_id async for info in run.client.list_sessions()] == ["a"]

    asyncio.run(story())


def test_the_cost_of_a_day_is_bounded_also_after_a_restart(directory: Path) -> None:
    """By what the turns told, all of which the service knows again at its start."""

    async def story() -> None:
        tenants: dict[str, Any] = {"local": {"cost_per_day_usd": 1e-9}}
        begun = time.time() // DAY
        async with serving(directory, tenants=tenants) as run:
            stopped = await run.client.ask("Say x")
            assert stopped.usage.cost_usd > 1e-9
            assert stopped.outcome in (samovar.Outcome.LIMIT_REACHED, samovar.Outcome.COMPLETED)
            first = await refused(run)
        async with serving(directory, tenants=tenants) as run:
            again = await refused(run)
        if time.time() // DAY != begun:
            pytest.skip("a day ended meanwhile")
        assert (first[0], again[0]) == ("cost-per-day", "cost-per-day")
        assert 0 < again[1] <= first[1] <= DAY

    asyncio.run(story())


def test_a_deadline_that_a_process_cannot_meet_refuses_the_turn_at_once(directory: Path) -> None:
    """Its caller is told when its process would come, long before the deadline."""

    async def story() -> None:
        async with serving(directory, fake=True, pool={"slots": 1}) as run:
            run.service.pool.queue.shares.settle("past", 0.0, 100 * BOUND, began=True)
            async with run.client.send(fake(v.text("a"), v.hang()), session="a") as running:
                await anext(running)
                waiting = run.client.send("Say b", session="b")
                asking = asyncio.ensure_future(anext(waiting))
                await until(lambda: run.service.pool.waiting)
                with pytest.raises(samovar.NoProcess) as raised:
                    await run.client.ask("Say c", session="c", deadline=BOUND)
                assert raised.value.metadata["cause"] == "saturated"
                assert (raised.value.retry_delay or 0.0) > BOUND
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
                await waiting.aclose()

    asyncio.run(story())
