"""Credentials that a program prints."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.service import serving, until
from support.timeouts import BOUND

from samovard.agent import command, process_tree
from samovard.agent.command import Command
from samovard.agent.credentials import Kind
from samovard.agent.process_tree import Strangers
from samovard.core.errors import Misconfigured


@pytest.fixture
def program(directory: Path) -> Callable[[str], tuple[str, ...]]:
    def make(script: str) -> tuple[str, ...]:
        path = directory / "program"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        return (str(path), "--of")

    return make


Make = Callable[[str], tuple[str, ...]]


def test_it_prints_the_credential_of_the_tenant_that_is_its_last_argument(program: Make) -> None:
    """Without a shell: a name is one argument, whatever it is."""

    async def story() -> None:
        provider = Command(program('printf "sk-%s-%s-%s\\n" "$#" "$1" "$2"'), Kind.OAUTH_TOKEN)
        found = await provider.get("acme")
        assert (found.kind, found.value.reveal()) == (Kind.OAUTH_TOKEN, "sk-2---of-acme")
        assert (await provider.get("a$(id)")).value.reveal() == "sk-2---of-a$(id)"
        assert (await provider.get("")).value.reveal() == "no-tenant"
        assert provider.pids == set()

    asyncio.run(story())


def test_it_is_run_once_in_a_while(
    program: Make, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask; again past what is kept, for what is fresh, and for another tenant."""

    async def story() -> None:
        provider = Command(program(f"echo x >> {directory}/runs; wc -l < {directory}/runs"))

        async def said(tenant: str = "acme", *, fresh: bool = False) -> str:
            return (await provider.get(tenant, fresh=fresh)).value.reveal()

        assert await asyncio.gather(*(said() for _ in range(5))) == ["1"] * 5
        before = (await provider.get("acme")).version
        assert await said(fresh=True) == "2"
        assert await said() == "2"
        assert (await provider.get("acme")).version != before
        assert await said("globex") == "3"
        monkeypatch.setattr(command, "KEPT", 0.0)
        assert await said() == "4"

    asyncio.run(story())


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo sk-x; exit 3", "failed"),
        ("true", "empty"),
        ("echo two words", "invalid characters"),
        ("echo one; echo two", "invalid characters"),
        ("yes sk", "too long|invalid"),
        ("kill -9 $$", "failed"),
        ("sleep 600", "takes too long"),
        ("echo sk-x; sleep 600 &", "takes too long"),
        ("echo sk-x; exec >&-; sleep 600", "takes too long"),
    ],
)
def test_a_program_that_fails_is_no_credential(
    program: Make, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    """Nor one that prints what cannot be one, or goes on; nothing of it is left, or told."""
    monkeypatch.setattr(command, "TIMEOUT", 0.5)

    async def story() -> None:
        provider = Command(program(script))
        begin = time.monotonic()
        with pytest.raises(Misconfigured, match=why) as refused:
            await provider.get("acme")
        assert time.monotonic() - begin < BOUND
        assert "sk" not in str(refused.value)
        assert provider.pids == set()

    asyncio.run(story())


def test_a_program_that_is_not_there_is_no_credential(directory: Path) -> None:
    """The start is refused with the reason that asks for an operator."""
    with pytest.raises(Misconfigured, match="cannot be run") as refused:
        asyncio.run(Command((str(directory / "none"),)).get("acme"))
    assert refused.value.cause == "credential-missing"


def test_the_sweep_for_stray_children_spares_it(program: Make, directory: Path) -> None:
    """It is no agent's, and not a stranger."""

    async def story() -> None:
        gate = directory / "gate"
        provider = Command(program(f"while ! test -e {gate}; do sleep 0.05; done; echo sk-x"))
        asked = asyncio.create_task(provider.get("acme"))
        await until(lambda: provider.pids)
        assert process_tree.sweep(Strangers.KILL, set(), provider.pids) == 0
        gate.touch()
        assert (await asked).value.reveal() == "sk-x"

    asyncio.run(story())


def test_a_service_asks_it_for_each_tenant(program: Make, directory: Path) -> None:
    """On the real CLI: what is printed is what the API is sent."""
    argv = program('echo "sk-of-$2"')

    async def story() -> None:
        given = {"provider": "command", "command": argv}
        async with serving(directory, credentials=given) as run:
            assert (await run.client.ask("Say x")).text == "x"
            assert run.stand_in.requests[0].credentials == ("sk-of-local",)

    asyncio.run(story())
