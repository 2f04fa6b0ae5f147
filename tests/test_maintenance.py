"""Background loops go on whatever a round of theirs meets."""

import ast
import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from support.core_runner import fails, story
from support.noted import Noted
from support.service import serving, until
from support.world import World, passes

from samovard import maintenance
from samovard.core.pool.background import repeat
from samovard.core.records import SessionKey, SessionRecord, TurnRecord
from samovard.maintenance import Maintenance
from samovard.store.sqlite.checkpoints import Checkpoints
from samovard.telemetry.loop_lag import LoopLag

SERVER = Path(maintenance.__file__).parent
#: Each loop of the upkeep with the method that is a round of it.
ROUNDS = {
    "look": "_look",
    "try a start": "_try",
    "ask the store": "_ask_store",
    "tell health": "_tell",
    "sweep": "_sweep",
    "return memory": "_return_memory",
    "expire": "_expire",
    "measure homes": "_measure_homes",
    "count processes": "_count_processes",
    "look at credentials": "_look_at_credentials",
    "end deleted tenants": "_end_deleted",
    "look at certificates": "_look_at_certificates",
    "read gauges": "_read_gauges",
}
#: Loops without an end that are no background work: each waits for something and returns,
#: or its own tests hold that it survives.
OTHERS = {
    "core/pool/background.py": 1,  # `repeat` itself
    "core/sessions/sessions.py": 2,  # look again until a session is not being closed
    "core/pool/supervisor.py": 1,  # below
    "agent/process_tree.py": 1,  # the start's, within a time
    "agent/selftest/raw_cli.py": 1,  # the self-test's, within a time
    "demo/picture.py": 1,
    "tenant_deletion.py": 1,  # a command's, within a time
    "serving.py": 2,  # a reload, each part of which answers for itself; until no session is left
}


@pytest.mark.parametrize("name", ROUNDS)
def test_a_loop_survives_a_round_that_raises(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It is told and counted, and the next round is seen."""
    work, rounds = getattr(Maintenance, ROUNDS[name]), []
    for pause in (
        "LOOK_EVERY",
        "STORE_EVERY",
        "SWEEP_EVERY",
        "TRIM_EVERY",
        "EXPIRE_EVERY",
        "MEASURE_EVERY",
        "COUNT_EVERY",
        "REVOKE_EVERY",
        "DELETE_EVERY",
        "CERTIFICATES_EVERY",
        "GAUGES_EVERY",
        "TRY_SOON",
    ):
        monkeypatch.setattr(maintenance, pause, 0.05)

    async def broken(self: Maintenance) -> None:
        rounds.append(self)
        if len(rounds) == 1:
            raise ValueError("a defect")
        await work(self)

    monkeypatch.setattr(Maintenance, ROUNDS[name], broken)

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            await until(lambda: len(rounds) > 2)
            assert (await run.client.ask("Say on")).text == "on"
            assert set(run.service.maintenance.loops()) == set(ROUNDS)

    with capture_logs() as lines:
        asyncio.run(story())
    (told,) = (line for line in lines if line["event"] == "loop.failed")
    assert (told["loop"], told["log_level"]) == (name, "error")


def test_a_round_that_raises_is_counted_and_its_pause_is_kept() -> None:
    """The pause bounds how often it is told."""
    noted, done = Noted(), []

    async def work() -> None:
        done.append("work")
        raise OSError

    async def pause() -> None:
        done.append("pause")
        if len(done) == 6:
            raise asyncio.CancelledError

    async def story() -> None:
        with pytest.raises(asyncio.CancelledError):
            await repeat("x", work, pause, noted)

    asyncio.run(story())
    assert done == ["work", "pause"] * 3
    assert noted.incidents == {"loop.failed": 3}


@story(slots=1, defects=1)
async def test_reaping_survives_a_stop_that_raises(w: World) -> None:
    """It is counted, and the process is stopped with the next try."""
    await w.turn()
    actor = w.stage.last
    stop, tries = actor.stop, list[bool]()

    async def broken(*, suspect: bool = False) -> None:
        tries.append(suspect)
        if len(tries) == 1:
            raise ValueError("a defect")
        await stop(suspect=suspect)

    actor.stop = broken  # type: ignore[method-assign]
    await w.sessions.close(SessionKey("acme", "default"))
    assert len(tries) == 2
    assert w.noted.incidents["loop.failed"] == 1


@story(defects=1)
async def test_what_is_owed_is_written_after_any_error(w: World) -> None:
    """An error that the store has no word for is counted, and the write is tried again."""
    commit, tries = w.shelf.commit, list[TurnRecord]()

    async def broken(session: SessionRecord, turn: TurnRecord) -> None:
        tries.append(turn)
        if not w.shelf.down and not w.noted.incidents["loop.failed"]:
            raise ValueError("a defect")
        await commit(session, turn)

    w.shelf.commit = broken  # type: ignore[method-assign]
    stream = await w.send("one", turn_id="t")
    actor = await w.running()
    w.shelf.down = True
    actor.answer("one")
    await fails(stream)
    await passes(0.5)  # what is under way has failed
    w.shelf.down = False
    await passes(10)
    assert w.noted.incidents["loop.failed"] == 1
    assert w.shelf.turns[SessionKey("acme", "default"), "t"].state == "finished"


def test_the_loop_is_looked_at_after_a_look_that_raises() -> None:
    """The next look at the loop is taken."""
    beats: list[float] = []
    failed: list[str] = []

    def lag(late: float) -> None:
        beats.append(late)
        if len(beats) == 1:
            raise ValueError("a defect")

    async def story() -> None:
        loop_lag = LoopLag(lag, lambda: failed.append("x"))
        loop_lag.start()
        await until(lambda: len(beats) > 1)
        loop_lag.stop()

    asyncio.run(story())
    assert failed == ["x"]


def test_checkpoints_go_on_after_one_that_raises(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it raises is told, and the next order is carried out."""
    connect, tries = sqlite3.connect, list[Path]()

    def broken(*arguments: Any, **options: Any) -> sqlite3.Connection:
        tries.append(directory)
        if len(tries) == 1:
            raise MemoryError("a defect")
        made: sqlite3.Connection = connect(*arguments, **options)
        return made

    path = directory / "x.db"
    with closing(connect(path)) as made:
        monkeypatch.setattr(sqlite3, "connect", broken)
        with capture_logs() as lines, Checkpoints(path, every=1) as checkpoints:
            for _ in range(2):
                checkpoints.wrote(made)
    assert len(tries) == 2
    assert [line["event"] for line in lines] == ["store.log_grows"]


def test_no_other_loop_runs_for_ever() -> None:
    """New background work goes through `repeat`, or is listed here with what bounds it."""
    found = {}
    for path in SERVER.rglob("*.py"):
        loops = [
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.While) and ast.unparse(node.test) == "True"
        ]
        if loops:
            found[str(path.relative_to(SERVER))] = len(loops)
    assert found == OTHERS
