"""A CLI that is replaced while the service runs: nothing runs it before it is tested."""

import asyncio
import hashlib
import json
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from structlog.testing import capture_logs
from support.health_watcher import NOT_SERVING, SERVING, cause, watching
from support.service import VERSION, prepare, serving, until

from samovard import maintenance
from samovard.core.pool.states import ProcessState


def test_a_cli_that_became_another_is_tested_before_it_counts(directory: Path) -> None:
    """One that fails its self-test is refused; the old one, put back, needs none."""

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        async with serving(directory, binary=binary) as run, watching(run) as health:
            assert await health.next() == SERVING
            good = binary.read_text()
            binary.write_text("#!/bin/sh\nexit 3\n")
            assert await health.next() == NOT_SERVING
            assert await cause(run, "new") == "agent-unsupported"
            binary.write_text(good)
            assert await health.next() == SERVING
            assert (await run.client.ask("Say back", session="new")).text == "back"

    asyncio.run(story())


def test_a_cli_that_became_another_replaces_its_processes(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Idle ones at once, leased ones when their turn ends; no turn feels it, sessions resume."""
    monkeypatch.setattr(maintenance, "LOOK_EVERY", 0.1)

    async def story() -> list[MutableMapping[str, Any]]:
        binary = await prepare(directory, fake=True)
        with capture_logs() as lines:
            async with serving(directory, binary=binary) as run:
                idle = (await run.client.ask("Say one", session="idle")).started
                gate = directory / "gate"
                asked = fake(v.gate(gate), v.text("done"))
                busy = asyncio.create_task(run.client.ask(asked, session="busy"))
                await until(lambda: any(p.state is ProcessState.RUNNING for p in run.service.pool))
                renew(directory, binary)
                await until(lambda: any(x["event"] == "process.outdated" for x in lines))
                after = (await run.client.ask("Say two", session="idle")).started
                assert (after.start_mode.name, after.pid == idle.pid) == ("RESUMED", False)
                gate.touch()
                before = await busy
                assert before.text == "done"
                again = (await run.client.ask("Say three", session="busy")).started
                assert (again.start_mode.name, again.pid == before.started.pid) == (
                    "RESUMED",
                    False,
                )
        return lines

    (told,) = (x for x in asyncio.run(story()) if x["event"] == "process.outdated")
    assert (told["stopped"], told["later"]) == (1, 1)


def test_a_cli_that_was_replaced_does_not_run_before_it_is_tested(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes of the same version, found by a turn's start before any look: the turn may be
    sent again, and the new CLI serves it once it has passed."""
    # The first look may come late.
    monkeypatch.setattr(maintenance.Maintenance, "_look", lambda self: asyncio.Event().wait())

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        async with serving(directory, binary=binary) as run:
            renew(directory, binary)
            assert await cause(run, "new") == "start-failed"
            digest = hashlib.sha256(binary.read_bytes()).hexdigest()
            await until(lambda: run.service.agent.agents.cli.digest == digest)
            answer = await run.client.ask("Say tested", session="new")
            assert answer.text == "tested"

    asyncio.run(story())


def test_a_cli_that_got_another_link_is_the_same(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file has another time of change, and the same bytes: turns go on."""
    monkeypatch.setattr(maintenance, "LOOK_EVERY", 3600.0)

    async def story() -> None:
        binary = await prepare(directory, fake=True)
        async with serving(directory, binary=binary) as run:
            (directory / "link").hardlink_to(binary)
            assert (await run.client.ask("Say linked", session="new")).text == "linked"

    asyncio.run(story())


def renew(directory: Path, binary: Path) -> None:
    """Puts another CLI in place, which has passed the self-test elsewhere."""
    newer = binary.read_text() + "# newer\n"
    notes = directory / "self-test.json"
    digest = hashlib.sha256(newer.encode()).hexdigest()
    known = json.loads(notes.read_text()) | {f"{digest} broker": VERSION}
    notes.write_text(json.dumps(known))
    beside = binary.with_suffix(".new")
    beside.write_text(newer)
    beside.chmod(0o755)
    beside.replace(binary)
