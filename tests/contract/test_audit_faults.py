"""The audit log behind a crash and on a full disk."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from contract.test_full_disk import fill
from fake_claude import fake
from fake_claude import verbs as v
from support.program import sending, served
from support.service import serving, until
from support.small_disk import small_disk
from support.timeouts import BOUND

import samovar
from samovard.audit import log as audit_log
from samovard.audit.log import AuditLog
from samovard.audit.sink import File
from samovard.core.errors import NoProcess
from samovard.telemetry.recorder import NULL_RECORDER


def test_a_crash_is_seen_at_the_next_start(directory: Path) -> None:
    """The killed service's turn was allowed and has no end before the next start, and the store
    knows it."""
    with served(directory) as program:
        with sending(program.address, fake(v.hang()), "--session", "s"):
            program.child.send_signal(signal.SIGKILL)
            program.child.wait(BOUND)
    lines = [json.loads(one) for one in (directory / "audit.jsonl").read_bytes().splitlines()]
    assert [line["event"] for line in lines] == ["started", "decision"]
    turn = lines[1]["turn"]

    async def story() -> None:
        async with serving(directory, binary=directory / "claude") as run:
            with pytest.raises(samovar.TurnLost) as lost:
                async for _ in run.client.attach(turn, session="s"):
                    pass
            assert lost.value.cause == "server-restarted"

    asyncio.run(story())
    found = [json.loads(one) for one in (directory / "audit.jsonl").read_bytes().splitlines()]
    assert found[:2] == lines
    assert [line["event"] for line in found[2:]] == ["started", "decision", "stopped"]


def test_a_full_disk_stops_the_log_once_its_room_is_used_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the last block; it goes on when there is room again, with every line in its place."""
    monkeypatch.setattr(audit_log, "RETRY_EVERY", 0.05)
    disk, room, size = directory / "d", 64 << 10, 1000

    def line(n: object) -> bytes:
        return json.dumps({"n": n}).ljust(size - 1).encode() + b"\n"

    async def story() -> None:
        path = disk / "audit"
        async with AuditLog(File(path, room), NULL_RECORDER, lambda _: line("resumed")) as log:
            await log.write(line(0), lambda: b"")
            fill(disk)
            written = 1
            with pytest.raises(NoProcess):
                while True:
                    await log.write(line(written), lambda: b"")
                    written += 1
            assert written >= room // size // 2
            await log.keep(line("kept"))
            (disk / "full").unlink()
            await until(lambda: not log.down)
            names = [json.loads(one)["n"] for one in path.read_bytes().splitlines()]
            assert names == [*range(written), "kept", "resumed"]

    with small_disk(disk, "16M"):
        asyncio.run(story())
