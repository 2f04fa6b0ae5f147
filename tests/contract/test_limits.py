"""Promises about the bounds on a turn, on the real CLI, and on what the model's API allows."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from google.rpc import error_details_pb2, status_pb2
from support.client_turns import ask, finished, of, started, text_of
from support.service import Running, key_for, raw, serving, simple
from support.timeouts import BOUND

import samovar
from samovard import maintenance
from samovard.agent import procfs
from samovard.standin import script, stall, status, text, tool

TOOLS = {"session": "s", "profile": "tools"}


def steps(directory: Path, count: int, most: int = 0) -> str:
    """Makes a prompt of so many steps, each of which leaves a line in a file, and an end.

    The model begins the step past the bound and then takes its time: one that calls a tool at
    once may be faster than the interrupt.
    """
    mark = directory / "steps"
    calls = [tool("Bash", {"command": f"echo {n} >> {mark}"}) for n in range(1, count + 1)]
    return script(
        *([call, stall(2)] if 0 < most == n else call for n, call in enumerate(calls)), text("end")
    )


async def run_steps(run: Running, count: int, most: int = 0, **options: Any) -> list[samovar.Event]:
    """Runs a turn of so many steps and gives its events."""
    prompt = steps(run.directory, count, most)
    return await ask(run, prompt, session="s", max_agent_steps=most, **options)


def taken(run: Running) -> list[str]:
    return (run.directory / "steps").read_text().split()


@pytest.mark.parametrize("most", [1, 2])
def test_max_agent_steps_of_a_request_is_kept(directory: Path, most: int) -> None:
    """The agent's tools run for as many steps and no more; the outcome says so, the report
    counts them, and the process serves on."""

    async def story() -> None:
        async with serving(directory) as run:
            limited = await run_steps(run, 5, most, profile="tools")
            assert finished(limited).outcome is samovar.Outcome.LIMIT_REACHED
            assert finished(limited).agent_steps == most
            assert taken(run) == [str(n) for n in range(1, most + 1)]
            after = await run.client.ask("Say on", session="s")
            assert (after.text, after.started.pid) == ("on", started(limited).pid)

    asyncio.run(story())


def test_a_turn_within_its_steps_is_not_disturbed(directory: Path) -> None:
    """A bound of as many steps as the turn takes changes nothing."""

    async def story() -> None:
        async with serving(directory) as run:
            whole = await run_steps(run, 2, 3, profile="tools")
            assert finished(whole).outcome is samovar.Outcome.COMPLETED
            assert (text_of(whole), finished(whole).agent_steps) == ("end", 3)

    asyncio.run(story())


def test_a_bound_above_the_profiles_is_the_profiles(directory: Path) -> None:
    """The profile's `max_agent_steps` holds whatever the request says."""

    async def story() -> None:
        tools = {"model": "haiku", "tools": ["Bash"], "allowed_tools": ["Bash"]}
        profiles = {"default": tools | {"max_agent_steps": 2}}
        async with serving(directory, profiles=profiles) as run:
            limited = await run_steps(run, 5, 9)
            assert finished(limited).outcome is samovar.Outcome.LIMIT_REACHED
            assert finished(limited).agent_steps == 2
            assert taken(run) == ["1", "2"]

    asyncio.run(story())


def test_tools_of_one_answer_are_one_step(directory: Path) -> None:
    """Steps are answers of the model, not calls of tools."""

    async def story() -> None:
        async with serving(directory) as run:
            pair = [tool("Bash", {"command": "true"}), tool("Bash", {"command": "true"})]
            prompt = script(pair, pair, text("end"))
            options = {"session": "s", "profile": "tools", "max_agent_steps": 3}
            last = finished(await ask(run, prompt, **options))
            assert (last.outcome, last.agent_steps) == (samovar.Outcome.COMPLETED, 3)

    asyncio.run(story())


def test_a_session_takes_no_more_of_the_disk_than_it_may(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turn that takes it is interrupted, a notice says why, and what it has made can be
    removed in the next."""
    monkeypatch.setattr(maintenance, "MEASURE_EVERY", 0.1)
    fill = tool("Bash", {"command": "head -c 3000000 /dev/zero > data; sleep 60"})
    tools = {"model": "haiku", "tools": ["Bash"], "allowed_tools": ["Bash"]}

    async def story() -> None:
        profiles = {"default": tools | {"max_disk": "2 MiB"}}
        async with serving(directory, profiles=profiles) as run:
            full = await ask(run, script(fill, text("end")))
            assert finished(full).outcome is samovar.Outcome.LIMIT_REACHED
            (notice,) = of(samovar.Notice, full)
            assert notice.message == "the turn reached its bound of 2097152 bytes of disk"

    asyncio.run(story())


def test_a_tool_that_takes_too_much_memory_fails_alone(directory: Path) -> None:
    """With the default bound the real CLI starts and works; its tool is told, and it serves on."""

    async def story() -> None:
        async with serving(directory) as run:
            big = "python3 -c 'bytearray(3 << 30)' 2>&1 | tail -n 1; ulimit -d"
            events = await ask(run, script(tool("Bash", {"command": big}), text("end")), **TOOLS)
            assert finished(events).outcome is samovar.Outcome.COMPLETED
            (result,) = of(samovar.ToolResult, events)
            assert result.text.split() == ["MemoryError", str(2 << 20)]
            after = await run.client.ask("Say on", session="s")
            assert (after.text, after.started.pid) == ("on", started(events).pid)

    asyncio.run(story())


def test_a_fork_bomb_is_killed_and_nobody_else_feels_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn is lost and says why, nothing of it is left, and its session goes on; other
    sessions' processes serve meanwhile and afterwards. On the fake agent."""
    monkeypatch.setattr(maintenance, "COUNT_EVERY", 0.1)
    profiles = {"default": {"model": "haiku", "max_processes": 50}}

    async def story() -> None:
        before = set(procfs.child_pids())  # what other tests of this worker keep
        async with serving(directory, fake=True, profiles=profiles) as run:
            warm = [await run.client.ask("Say on", session=name) for name in "abc"]
            bomb = asyncio.ensure_future(ask(run, fake(v.swarm(1000), v.hang()), session="bomb"))
            for name in "abc":
                assert (await run.client.ask("Say on", session=name)).text == "on"
            with pytest.raises(samovar.TurnLost) as lost:
                await bomb
            assert lost.value.cause == "process-limit"
            again = await run.client.ask("Say on", session="bomb")
            assert again.started.start_mode is samovar.StartMode.RESUMED
            pids = {answer.started.pid for answer in (*warm, again)}
            assert {process.handle.pid for process in run.service.pool} == pids
            assert set(procfs.child_pids()) - before == pids, "something of the bomb is left"

    asyncio.run(story())


def test_a_known_limit_of_the_api_refuses_turns_until_it_is_over(directory: Path) -> None:
    """The turn that met it says when it ends; until then the tenant's turns with that model are
    QUOTA_EXCEEDED with that time, and ask nobody; other models are asked. On the fake agent, which
    is told the time of day as one with a subscription is."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            limit = {"status": "rejected", "resetsAt": time.time() + 2}
            prompt = fake(v.line("rate_limit_event", rate_limit_info=limit), v.api_error(429))
            met = finished(await ask(run, prompt))
            assert met.outcome is samovar.Outcome.FAILED
            assert met.upstream_retry_delay == pytest.approx(2, abs=0.5)
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await raw(run.stub, simple("Say no"))
            info, spent, retry = _details(error.value)
            assert (info.reason, info.metadata["cause"]) == ("QUOTA_EXCEEDED", "upstream-limit")
            assert "promptWritten" not in info.metadata
            assert [violation.subject for violation in spent.violations] == ["model:haiku"]
            assert 0 < retry.retry_delay.ToMilliseconds() <= 2000
            assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert text_of(await ask(run, "Say yes", session="o", model="opus")) == "yes"
            # The client comes again by itself when it is told to.
            assert text_of(await ask(run, "Say again")) == "again"
            assert (await run.client.get_session()).turn_count == 2

    asyncio.run(story())


def test_a_limit_that_is_told_with_a_key_holds_turns_back(directory: Path) -> None:
    """The API's `retry-after` is the turn's `upstream_retry_delay`, and until it is over the API
    is not asked again: the client waits by itself."""

    async def story() -> None:
        profiles = {"default": {"model": "haiku", "cli_retries": 1}}
        async with serving(directory, profiles=profiles, auth={"methods": ["api_key"]}) as run:
            key = await key_for(directory, "acme")
            async with samovar.AsyncClient(run.address, api_key=key, deadline=BOUND) as client:
                async with client.send(script(status(429, times=2))) as turn:
                    *_, met = [event async for event in turn]
                assert isinstance(met, samovar.TurnFinished)
                assert met.failure_cause is samovar.FailureCause.RATE_LIMITED
                assert met.upstream_retry_delay is not None
                assert 1 <= met.upstream_retry_delay < 2
                assert (await client.ask("Say on", session="other")).text == "on"
        *_, refused, asked = [request.time for request in run.stand_in.requests]
        assert asked - refused >= 1

    asyncio.run(story())


def _details(error: grpc.aio.AioRpcError) -> list[Any]:
    """Gives what a refusal says, in its order."""
    kinds = ("ErrorInfo", "QuotaFailure", "RetryInfo")
    trailing: Any = error.trailing_metadata()
    status = status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])
    found = []
    for name, packed in zip(kinds, status.details, strict=True):
        found.append(getattr(error_details_pb2, name)())
        assert packed.Unpack(found[-1])
    return found
