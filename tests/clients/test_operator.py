"""The operator's clients, against the real service."""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Any

import pytest
from support.service import Running, key_for, prepare, serving, until

import samovar
from samovar.operating import operator_target
from samovard.core.pool.states import ProcessState


async def told(run: Running, target: str) -> None:
    """Asks everything, from asyncio and in a thread, and holds the answers together."""
    await run.client.ask("Say x", session="a")
    await run.client.ask("Say x", session="b", profile="tools")
    await until(lambda: all(process.state is ProcessState.IDLE for process in run.service.pool))
    async with samovar.AsyncOperator(target) as operator:
        async with contextlib.aclosing(operator.watch(0.1)) as snapshots:
            snapshot = await anext(snapshots)
            assert (await anext(snapshots)).time > snapshot.time
        pools = [pool async for pool in operator.list_pools()]
        processes = [process async for process in operator.list_processes()]
    assert [(p.tenant_id, p.profile) for p in pools] == [("local", "default"), ("local", "tools")]
    assert {p.process_id for p in processes} == {p.process_id for p in snapshot.processes}
    assert [(p.session_id, p.state) for p in processes] == [("a", "idle"), ("b", "idle")]
    assert snapshot.server.start_time < processes[0].create_time < snapshot.time
    assert sum(pool.counters.turns for pool in pools) == 2
    stages = pools[0].counters.stage_times
    assert [stage.stage for stage in stages][::3] == ["admit", "first_event"]
    assert await asyncio.to_thread(listed, target) == (pools, processes)


def listed(target: str) -> tuple[list[samovar.PoolInfo], list[samovar.ProcessInfo]]:
    with samovar.Operator(target) as operator:
        with contextlib.closing(operator.watch()) as snapshots:
            assert len(next(snapshots).processes) == 2
        return [*operator.list_pools()], [*operator.list_processes()]


def test_both_clients_tell_the_same(directory: Path) -> None:
    """Pools, processes and snapshots are plain values, whoever asks for them."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            await told(run, f"unix:{directory / 'operator.sock'}")

    asyncio.run(story())


def test_who_reads_too_slowly_gets_no_old_snapshots(directory: Path) -> None:
    """But for one, which waited for him; all others were never made."""

    async def story() -> None:
        async with serving(directory, fake=True):
            async with samovar.AsyncOperator(f"unix:{directory / 'operator.sock'}") as operator:
                async with contextlib.aclosing(operator.watch(0.1)) as snapshots:
                    slow = (await anext(snapshots)).time + 0.7
                    await until(lambda: time.time() > slow)
                    waited, fresh = await anext(snapshots), await anext(snapshots)
                    assert fresh.time - waited.time > 0.4

    asyncio.run(story())


def test_drain_tells_what_it_did(directory: Path) -> None:
    """By both clients: the second has nothing left to do."""

    async def story() -> None:
        target = f"unix:{directory / 'operator.sock'}"
        async with serving(directory, fake=True) as run:
            await run.client.ask("Say x")
            await until(
                lambda: all(process.state is ProcessState.IDLE for process in run.service.pool)
            )
            async with samovar.AsyncOperator(target) as operator:
                assert await operator.drain("local", "default") == samovar.Drained(1, 0)

            def again() -> samovar.Drained:
                with samovar.Operator(target) as operator:
                    return operator.drain("local")

            assert await asyncio.to_thread(again) == samovar.Drained(0, 0)

    asyncio.run(story())


def test_errors_are_typed(directory: Path) -> None:
    """A tenant's key lacks the scope; a bad request names its field."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        key = await key_for(directory, "acme")
        admin = await key_for(directory, "ops", "admin")
        target = f"unix:{directory / 'operator.sock'}"
        async with serving(directory, binary=binary, auth={"methods": ["api_key"]}):
            async with samovar.AsyncOperator(target, api_key=key) as tenant:
                with pytest.raises(samovar.ScopeMissing):
                    await tenant.drain("acme")
                with pytest.raises(samovar.ScopeMissing):
                    await anext(tenant.watch())
            async with samovar.AsyncOperator(target, api_key=admin) as operator:
                with pytest.raises(samovar.RequestInvalid) as error:
                    await anext(operator.watch(0.01))
                assert [field for field, _ in error.value.violations] == ["interval"]

    asyncio.run(story())


def test_the_socket_is_looked_for_where_services_have_it(tmp_path: Path) -> None:
    """What is named comes first, then this user's, then the system's."""
    state = tmp_path / "state"
    found: dict[str, Any] = {"XDG_STATE_HOME": str(state)}
    assert operator_target({**found, "SAMOVAR_OPERATOR": "unix:/x"}) == "unix:/x"
    assert operator_target(found) == f"unix:{state}/samovar/operator.sock"
    assert operator_target({"XDG_STATE_HOME": "x"}).endswith(".local/state/samovar/operator.sock")


def test_a_socket_with_too_long_a_path_is_found_by_its_link(tmp_path: Path) -> None:
    """gRPC can only be given the short path that the service linked to."""
    state = tmp_path / ("x" * 100)
    (state / "samovar").mkdir(parents=True)
    (state / "samovar" / "operator.sock").symlink_to("/short/operator.sock")
    assert operator_target({"XDG_STATE_HOME": str(state)}) == "unix:/short/operator.sock"
