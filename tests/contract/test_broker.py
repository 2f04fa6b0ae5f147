"""The broker in a whole service, on the real CLI: what agents have and what they may do."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs
from support.canary_search import places, tree
from support.otlp_collector import collecting
from support.service import Running, serving, until

import samovar
from samovard.agent.launch import PLACEHOLDER
from samovard.core.pool.states import ProcessState
from samovard.standin import drip, script, status, text, tool
from samovard.telemetry import names

CANARY = "sk-ant-canary-4f1c9be2"
PROCESS = "SAMOVAR_PROCESS"
KNOWN = {"ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"}


def planted(directory: Path, **more: Any) -> dict[str, Any]:
    (directory / "canary").touch(mode=0o600)
    (directory / "canary").write_text(CANARY)
    return {"path": directory / "canary", **more}


def environ(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def waits_for(gate: Path) -> str:
    """Return a prompt whose tool shows what it sees, and runs until a file is there."""
    seen = "env; tr '\\0' '\\n' </proc/$PPID/environ"
    return script(tool("Bash", {"command": f"{seen}; while ! test -e {gate}; do sleep 0.05; done"}))


async def events(run: Running, prompt: str) -> list[Any]:
    async with run.client.send(prompt, session="s", profile="tools") as turn:
        return [event async for event in turn]


async def searched(run: Running, directory: Path) -> set[str]:
    """Return where the canary is while a tool runs, and whether callers are shown it."""
    pid = (await run.client.ask("Say hello", session="s", profile="tools")).started.pid
    gate = directory / "gate"
    turn = asyncio.create_task(events(run, waits_for(gate)))
    try:
        await until(lambda: any(str(gate) in arguments(each) for each in tree(pid)))
        found = await asyncio.to_thread(places, pid, directory / "s", CANARY)
    finally:
        gate.touch()
    told = repr(await turn)
    assert PROCESS in told
    told += repr(await events(run, script(status(401, times=9))))
    assert {c for request in run.stand_in.requests for c in request.credentials} == {CANARY}
    return found | ({"answers"} if CANARY in told else set())


def arguments(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:  # it ended meanwhile
        return ""


def search(directory: Path, **credentials: Any) -> tuple[set[str], str]:
    async def story() -> tuple[set[str], str]:
        with collecting() as collector, capture_logs() as lines:
            telemetry = {
                "endpoint": collector.grpc_url,
                "agent_endpoint": collector.http_url,
                "tenants": ["local"],
            }
            given = planted(directory, **credentials)
            bash = {"tools": ["Bash"], "allowed_tools": ["Bash"]}
            profiles = {"tools": {"model": "haiku", "cli_retries": 0, **bash}}
            async with serving(
                directory, credentials=given, telemetry=telemetry, profiles=profiles
            ) as run:
                found = await searched(run, directory)
        assert lines
        assert collector.spans
        return found, repr(lines) + repr(collector.spans) + repr(collector.points)

    return asyncio.run(story())


def test_the_credential_is_nowhere_with_the_broker(directory: Path) -> None:
    """Not in an agent's environment, arguments, descriptors, files and memory, nor its tools';
    not in answers, log lines, spans and metrics."""
    found, told = search(directory)
    assert found == set()
    assert CANARY not in told


def test_the_search_finds_a_credential_that_is_there(directory: Path) -> None:
    """Delivered by the environment it is in there, in memory, and in what a tool prints."""
    found, told = search(directory, delivery="environment", allow_environment=True)
    assert found >= {"environ", "memory", "answers"}
    assert CANARY not in told


def test_an_agent_has_an_address_and_a_placeholder(directory: Path) -> None:
    """Its own of each: two processes share no address, and what was sent is the credential."""

    async def story() -> None:
        async with serving(directory) as run:
            pids = [(await run.client.ask("Say x", session=name)).started.pid for name in "ab"]
            given = [{name: environ(pid)[name] for name in KNOWN} for pid in pids]
            assert {each["ANTHROPIC_API_KEY"] for each in given} == {PLACEHOLDER}
            assert len({each["ANTHROPIC_BASE_URL"] for each in given}) == 2
            assert not any("FILE_DESCRIPTOR" in name for pid in pids for name in environ(pid))
            sent = {c for request in run.stand_in.requests for c in request.credentials}
            assert sent == {"sk-test"}

    asyncio.run(story())


def test_between_turns_an_agents_address_refuses_and_after_its_end_it_is_gone(
    directory: Path,
) -> None:
    """What somebody else may have read of it is of no use."""

    async def story() -> None:
        async with serving(directory) as run, aiohttp.ClientSession() as http:
            pid = (await run.client.ask("Say x", session="s")).started.pid
            url = f"{environ(pid)['ANTHROPIC_BASE_URL']}/v1/messages"
            await until(lambda: all(p.state is ProcessState.IDLE for p in run.service.pool))
            asked = len(run.stand_in.requests)
            async with http.post(url, json={"model": "haiku"}) as answer:
                assert answer.status == 403
            turn = asyncio.create_task(run.client.ask(script(drip(50, 0.05)), session="s"))
            await until(lambda: len(run.stand_in.requests) > asked)
            async with http.post(url, json={"model": "haiku", "messages": []}) as answer:
                assert answer.status == 200
            await turn
            await run.client.close_session("s")
            with pytest.raises(aiohttp.ClientConnectorError):
                await http.post(url, json={})

    asyncio.run(story())


def test_a_credential_that_is_replaced_is_used_by_the_process_that_runs(directory: Path) -> None:
    """A turn of the same process sends it, within a second or so."""

    async def story() -> None:
        async with serving(directory) as run:
            before = (await run.client.ask("Say one", session="s")).started
            (directory / "key").write_text("sk-renewed")
            sent: list[tuple[str, ...]] = [("sk-test",)]
            while sent[-1] == ("sk-test",):
                after = (await run.client.ask("Say two", session="s")).started
                assert after.process_id == before.process_id
                sent = [request.credentials for request in run.stand_in.requests]
            assert sent[-1] == ("sk-renewed",)

    asyncio.run(story())


def test_an_oauth_token_passes_with_what_belongs_to_it(directory: Path) -> None:
    """The CLI sends a token's headers, and the broker the token."""

    async def story() -> None:
        given = {"kind": "oauth_token", "oauth_token_owner": "operator"}
        async with serving(directory, credentials=given) as run:
            assert (await run.client.ask("Say x")).text == "x"
            assert run.stand_in.requests[0].credentials == ("Bearer sk-test",)

    asyncio.run(story())


def test_requests_and_tokens_are_counted_by_tenant(directory: Path) -> None:
    """As the API counts them, for what was sent and for what was refused."""

    async def story() -> dict[tuple[str, ...], float]:
        with collecting() as collector:
            telemetry = {"endpoint": collector.grpc_url, "tenants": ["local"]}
            async with serving(directory, telemetry=telemetry) as run:
                await run.client.ask("Say hello")
        return {
            (point.name, *map(str, point.labels.values())): point.value
            for point in collector.points.values()
            if point.name.startswith("samovar.broker.")
        }

    counted = asyncio.run(story())
    assert counted[names.BROKER_REQUESTS, "2xx", "default", "local"] == 1
    assert counted[names.BROKER_TOKENS, "input", "default", "local"] == 10
    assert counted[names.BROKER_TOKENS, "output", "default", "local"] == 12


@pytest.mark.parametrize("code", [429, 529])
def test_a_passing_failure_of_the_api_is_repeated_by_the_cli(directory: Path, code: int) -> None:
    """The turn does not notice."""

    async def story() -> None:
        async with serving(directory) as run:
            answer = await run.client.ask(script([status(code), text("after all")]))
            assert (answer.outcome, answer.text) == (samovar.Outcome.COMPLETED, "after all")
            assert len(run.stand_in.requests) == 2

    asyncio.run(story())
