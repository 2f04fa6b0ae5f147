"""The database's calls as they are measured."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from test_store import KEY, session, turn

from samovard.core.errors import NoProcess
from samovard.store.checkpoints import Checkpoints
from samovard.store.database import Database, _prepare
from samovard.store.sessions import SessionStore


def test_each_call_is_measured(tmp_path: Path) -> None:
    """Under its name, with the time that it took, and whether the database did it."""
    heard: list[tuple[str, float, str]] = []

    async def story() -> None:
        url = f"sqlite:///{tmp_path / 'x.db'}"
        async with Database(url, lambda *call: heard.append(call)) as database:
            store = SessionStore(database)
            await store.record(session(), turn())
            await store.record(session(), turn())  # taken: the store has answered all the same
            await database.run(lambda c: c.exec_driver_sql("DROP TABLE turn"))
            with pytest.raises(NoProcess):
                await store.load_turn(KEY, "t")

    asyncio.run(story())
    assert [(name, result) for name, _, result in heard] == [
        ("record", "ok"),
        ("record", "ok"),
        ("load_turn", "ok"),
        ("other", "ok"),
        ("load_turn", "failed"),
    ]
    assert all(0 < seconds < 5 for _, seconds, _ in heard)


def test_no_commit_carries_the_log_over(tmp_path: Path) -> None:
    """SQLite itself would, in one of some hundred turns, and let it wait for the disk."""

    async def story() -> None:
        async with Database(f"sqlite:///{tmp_path / 'x.db'}") as database:
            pragma = "PRAGMA wal_autocheckpoint"
            assert await database.run(lambda c: c.exec_driver_sql(pragma).scalar()) == 0

    asyncio.run(story())


def test_the_log_begins_anew_however_much_is_written(tmp_path: Path) -> None:
    """Without a pause of the writer, too, it has no more than its bound and a little."""
    path = tmp_path / "x.db"
    writer = sqlite3.connect(path, isolation_level=None)
    with contextlib.closing(writer), Checkpoints(path, every=20, most=100) as checkpoints:
        _prepare(writer, None)
        writer.execute("CREATE TABLE t (x)")
        writer.execute("INSERT INTO t VALUES (0)")
        for _ in range(5000):
            writer.execute("UPDATE t SET x = x + 1")
            checkpoints.wrote(writer.cursor())
        size = Path(f"{path}-wal").stat().st_size
    assert size < 2500 * 4096
