"""`GetUsage` and `ListUsage` over a real channel, as the contract promises them."""

import asyncio
import signal
from collections.abc import Iterable
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.operator_client import reason, told
from support.program import served
from support.service import Running, key_for, prepare, serving

import samovar
from samovar.v1 import pool_pb2 as pb

KEYS: dict[str, Any] = {"auth": {"methods": ["api_key"]}}


def total(usages: Iterable[samovar.Usage]) -> samovar.Usage:
    every = [*usages]
    names = [field.name for field in fields(samovar.Usage)]
    return samovar.Usage(*(sum(getattr(usage, name) for usage in every) for name in names))


def today() -> date:
    return datetime.now(UTC).date()


def test_it_is_the_sum_of_what_the_turns_told(directory: Path) -> None:
    """Of all turns of the tenant, of sessions that were closed since, too."""

    async def story() -> None:
        async with serving(directory) as run, samovar.AsyncClient(run.address) as client:
            begun = today()
            answers = [await client.ask(f"Say {n}", session=f"s{n % 2}") for n in range(4)]
            assert answers[0].usage.output_tokens
            await client.close_session("s0")
            found = await client.usage(begun)
            assert sum(entry.turns for entry in found) == 4
            assert total(entry.usage for entry in found) == total(a.usage for a in answers)
            assert not any(entry.lost_turns or entry.tenant for entry in found)
            assert [entry for entry in found if entry.model] == found
            assert await client.usage(last_day=begun - timedelta(1)) == []

    asyncio.run(story())


def test_a_lost_turn_is_told_apart(directory: Path) -> None:
    """Its end is not known, nor what it used to the last."""

    async def story() -> None:
        async with (
            serving(directory, fake=True) as run,
            samovar.AsyncClient(run.address) as client,
        ):
            with pytest.raises(samovar.TurnLost):
                await client.ask(fake(v.text("half"), v.die("mid_text")))
            (entry,) = await client.usage()
            assert (entry.turns, entry.lost_turns) == (0, 1)

    asyncio.run(story())


def test_a_kill_of_the_service_loses_only_what_ran(directory: Path) -> None:
    """Turns that had ended are exact, and the one that ran is told as lost."""
    with served(directory) as program, samovar.Client(program.address) as client:
        answer = client.ask("Say x")
        with client.send(fake(v.text("half"), v.hang()), keep_running=True) as hanging:
            while not isinstance(next(hanging), samovar.TextDelta):
                pass
            program.end(signal.SIGKILL)
    with served(directory) as program:
        with samovar.Client(program.address) as client:
            found = client.usage()
        assert total(entry.usage for entry in found) == answer.usage
        assert (sum(e.turns for e in found), sum(e.lost_turns for e in found)) == (1, 1)
        assert program.end() == 0


def test_callers_see_their_own_and_operators_all(directory: Path) -> None:
    """By tenant, page by page; a key of a tenant does not open the operator's list."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        keys = {name: await key_for(directory, name) for name in ("acme", "zeta")}
        admin = await key_for(directory, "ops", "admin")
        async with serving(directory, binary=binary, **KEYS) as run:
            for name, key in keys.items():
                async with samovar.AsyncClient(run.address, api_key=key) as client:
                    for session in {"acme": "a", "zeta": "zz"}[name]:
                        await client.ask("Say x", session=session)
                    assert sum(e.turns for e in await client.usage()) == (name == "zeta") + 1
            target = f"unix:{directory / 'operator.sock'}"
            async with samovar.AsyncOperator(target, api_key=admin) as ops:
                every = [entry async for entry in ops.list_usage()]
                assert [(e.tenant, e.turns) for e in every] == [("acme", 1), ("zeta", 2)]
                assert [e async for e in ops.list_usage("zeta")] == every[1:]
                assert [e async for e in ops.list_usage(last_day=date(2000, 1, 1))] == []
            async with samovar.AsyncOperator(target, api_key=keys["acme"]) as other:
                with pytest.raises(samovar.ScopeMissing):
                    await anext(aiter(other.list_usage()))

    asyncio.run(story())


def test_a_list_is_told_in_pages(directory: Path) -> None:
    """A page's token goes on where it ended, and belongs to its request."""

    async def story(run: Running, stub: Any) -> None:
        async with samovar.AsyncClient(run.address) as client:
            await client.ask("Say x")
        found = await stub.ListUsage(pb.ListUsageRequest(page_size=1))
        assert [entry.tenant_id for entry in found.entries] == ["local"]
        assert not found.next_page_token
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await stub.ListUsage(pb.ListUsageRequest(page_token="x"))
        assert reason(error.value)[0] == "REQUEST_INVALID"

    told(directory, story)
