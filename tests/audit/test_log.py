"""Audit lines in order, whatever the sink does."""

import asyncio
import fcntl
import json
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.service import until
from support.timeouts import BOUND

from samovard.audit import log as audit_log
from samovard.audit.log import AuditLog
from samovard.audit.sink import File, Sink, sink
from samovard.core.errors import NoProcess
from samovard.store.thread import OneThread
from samovard.telemetry.recorder import NULL_RECORDER


def line(name: object, **more: object) -> bytes:
    return json.dumps({"n": name, **more}).encode() + b"\n"


def resumed(refused: int) -> bytes:
    return line("resumed", refused=refused)


def undo(name: object) -> Callable[[], bytes]:
    return lambda: line(name, undone=True)


def names(data: bytes) -> list[Any]:
    return [json.loads(one)["n"] for one in data.splitlines()]


@asynccontextmanager
async def logging(to: Sink, patience: float = 60.0) -> AsyncIterator[AuditLog]:
    async with AuditLog(to, NULL_RECORDER, resumed, patience) as log:
        yield log


async def refused(done: Awaitable[None]) -> None:
    with pytest.raises(NoProcess) as error:
        await done
    assert (error.value.cause, error.value.retry_after) == ("audit-down", 1.0)


class Place:
    """A file that cannot be written while its directory is away."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "log" / "audit"
        self._away = directory / "away"
        self.path.parent.mkdir(mode=0o700)

    def breaks(self) -> None:
        self.path.parent.rename(self._away)

    def mends(self) -> None:
        self._away.rename(self.path.parent)

    def names(self) -> list[Any]:
        return names(self.path.read_bytes())


class Pipe:
    """A pipe that is full until it is read."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        fcntl.fcntl(self.writing, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.writing, False)
        self.filler = os.write(self.writing, b"\n" * 65536)
        os.set_blocking(self.writing, True)

    def sink(self) -> Sink:
        return sink(f"fd:{self.writing}")

    def read(self) -> bytes:
        return os.read(self.reading, 65536)

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


def test_a_thousand_lines_at_once_are_written_in_order(directory: Path) -> None:
    """Each that was waited for is in the file; those that wait for a write share the next."""

    async def story() -> None:
        path = directory / "audit"
        async with logging(File(path)) as log:
            await asyncio.gather(*(log.write(line(n), undo(n)) for n in range(1000)))
            assert names(path.read_bytes()) == list(range(1000))

    asyncio.run(story())


def test_a_line_is_there_when_its_caller_goes_on(directory: Path) -> None:
    """It is in the file, not on its way."""

    async def story() -> None:
        path = directory / "audit"
        async with logging(File(path)) as log:
            for n in range(20):
                await (log.write(line(n), undo(n)) if n % 2 else log.keep(line(n)))
                assert names(path.read_bytes())[-1] == n

    asyncio.run(story())


def test_calls_are_refused_while_nothing_can_be_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is over already is kept, in order, and written once the sink is back, by itself."""
    monkeypatch.setattr(audit_log, "RETRY_EVERY", 0.02)
    place = Place(directory)

    async def story() -> None:
        async with logging(File(place.path)) as log:
            await log.write(line("allowed"), undo("allowed"))
            place.breaks()
            await refused(log.write(line("refused"), undo("refused")))
            await log.keep(line("first"))
            await log.keep(line("second"))
            assert log.down
            assert log.pending >= 2
            await refused(log.write(line("refused"), undo("refused")))
            place.mends()
            await until(lambda: not log.down)
            await log.write(line("allowed again"), undo("allowed again"))

    with capture_logs() as lines:
        asyncio.run(story())
    assert place.names() == ["allowed", "first", "second", "resumed", "allowed again"]
    assert json.loads(place.path.read_bytes().splitlines()[3])["refused"] == 2
    assert [entry["event"] for entry in lines] == ["audit.down", "audit.up"]


def test_a_write_that_hangs_refuses_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time; a line that was written in the end is followed by one that undoes it."""
    pipe = Pipe()

    async def story() -> None:
        async with logging(pipe.sink(), patience=0.05) as log:
            hangs = log.write(line("hangs"), undo("hangs"))
            waits = log.write(line("waits"), undo("waits"))
            kept = log.keep(line("kept"))
            await refused(hangs)
            await refused(waits)
            await kept
            await refused(log.write(line("late"), undo("late")))
            said = pipe.read()
            while b"resumed" not in said:
                said += await asyncio.to_thread(pipe.read)
            assert names(said.strip()) == ["hangs", "hangs", "kept", "resumed"]
            await until(lambda: not log.down)
            assert log.refused == 0

    with capture_logs() as lines:
        asyncio.run(story())
    pipe.close()
    assert [entry["event"] for entry in lines] == ["audit.down", "audit.up"]


def test_the_end_of_a_write_that_nobody_waited_for_is_heard() -> None:
    """The log is up again though no call comes."""
    pipe = Pipe()

    async def story() -> None:
        async with logging(pipe.sink(), patience=0.01) as log:
            log.keep(line("kept"))
            await until(lambda: log.down)
            said = pipe.read()
            while b"resumed" not in said:
                said += await asyncio.to_thread(pipe.read)
            await until(lambda: not log.down)

    asyncio.run(story())
    pipe.close()


def test_a_write_that_never_returns_holds_up_no_exit() -> None:
    """The lines that are left are counted in the log, as lost."""
    pipe = Pipe()

    async def story() -> None:
        async with logging(pipe.sink(), patience=0.01) as log:
            await log.keep(line("kept"))
            await until(lambda: log.down)

    with capture_logs() as lines:
        asyncio.run(story())
    assert [(entry["event"], entry.get("count")) for entry in lines] == [
        ("audit.down", None),
        ("audit.lost", 1),
    ]
    pipe.read()  # its thread goes on, and ends
    pipe.close()


def test_a_renamed_file_is_opened_anew_when_it_is_asked_for(directory: Path) -> None:
    """Without a line, and without disturbing those that are written at the moment."""

    async def story() -> None:
        path = directory / "audit"
        async with logging(File(path)) as log:
            path.rename(directory / "old")
            log.reopen()
            log.reopen()
            await until(path.exists)
            lines = [log.write(line(n), undo(n)) for n in range(3)]
            log.reopen()
            await asyncio.gather(*lines)
        assert names(path.read_bytes()) == [0, 1, 2]

    asyncio.run(story())


def test_what_was_kept_is_written_at_the_end(directory: Path) -> None:
    """A sink that is back by then is tried once more."""
    place = Place(directory)

    async def story() -> None:
        async with logging(File(place.path)) as log:
            place.breaks()
            await log.keep(line("kept"))
            place.mends()

    asyncio.run(story())
    assert place.names() == ["kept", "resumed"]


def test_a_reader_that_has_gone_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed pipe is told once, however often it is tried."""
    monkeypatch.setattr(audit_log, "RETRY_EVERY", 0.01)
    pipe = Pipe()
    os.close(pipe.reading)

    async def story() -> None:
        async with logging(pipe.sink()) as log:
            for n in range(3):
                await refused(log.write(line(n), undo(n)))
            attempts = log._retry
            await until(lambda: log._retry is not attempts)

    with capture_logs() as lines:
        asyncio.run(story())
    os.close(pipe.writing)
    assert [entry["event"] for entry in lines] == ["audit.down"]
    assert lines[0]["error"] == "Broken pipe"


def test_a_caller_that_leaves_keeps_no_line_from_being_written(directory: Path) -> None:
    """The line of a cancelled call is written, and those of others behind it."""

    async def story() -> None:
        path = directory / "audit"
        async with logging(File(path)) as log:
            left = asyncio.ensure_future(log.write(line("left"), undo("left")))
            stays = log.write(line("stays"), undo("stays"))
            left.cancel()
            await stays
            assert names(path.read_bytes()) == ["left", "stays"]

    asyncio.run(story())


@asynccontextmanager
async def carried(to: Sink) -> AsyncIterator[tuple[AuditLog, OneThread]]:
    with OneThread("store") as carrier:
        async with AuditLog(to, NULL_RECORDER, resumed, 60.0, carrier=carrier) as log:
            yield log, carrier


def test_a_line_rides_with_what_its_caller_asks_for(directory: Path) -> None:
    """It is written before that, by the same thread; then nobody waits for it any more."""
    path = directory / "audit"

    async def story() -> None:
        async with carried(File(path)) as (log, carrier):
            told = log.write(line(1), undo(1), rides=True)
            assert path.read_bytes() == b""
            assert names(await carrier.run(path.read_bytes)) == [1]
            await told
            assert log.pending == 0

    asyncio.run(story())


@pytest.mark.parametrize("how", ["it alone", "another line"])
def test_a_line_that_is_waited_for_sets_out(directory: Path, how: str) -> None:
    """Though its caller asked for nothing."""
    path = directory / "audit"

    async def story() -> None:
        async with carried(File(path)) as (log, _):
            told = log.write(line(1), undo(1), rides=True)
            await (told if how == "it alone" else log.write(line(2), undo(2)))
            assert names(path.read_bytes())[0] == 1

    asyncio.run(story())


def test_no_line_waits_for_a_transaction(directory: Path) -> None:
    """While the carrier is at work, lines have the log's own thread."""
    path, entered, leave = directory / "audit", threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        leave.wait(BOUND)

    async def story() -> None:
        async with carried(File(path)) as (log, carrier):
            busy = asyncio.ensure_future(carrier.run(slow))
            await asyncio.to_thread(entered.wait, BOUND)
            await log.write(line(1), undo(1), rides=True)
            assert names(path.read_bytes()) == [1]
            leave.set()
            await busy

    asyncio.run(story())


def test_a_line_that_rides_with_nothing_is_no_write_that_hangs(directory: Path) -> None:
    """It sets out in time by itself."""
    path = directory / "audit"

    async def story() -> None:
        async with carried(File(path)) as (log, _):
            log.keep(line(1), rides=True)
            log._look()
            await until(lambda: path.read_bytes() != b"")
            await log.write(line(2), undo(2))
            assert not log.down
        assert names(path.read_bytes()) == [1, 2]

    with capture_logs() as lines:
        asyncio.run(story())
    assert lines == []
