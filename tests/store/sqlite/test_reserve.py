"""Disk space kept for the database: real blocks, given up once, lent to the log."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Connection
from support.file_store import session, turn

from samovard.core.errors import NoProcess
from samovard.store.ledger import Ledger
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database
from samovard.store.sqlite.reserve import LEAST, SIZE, Reserve


@pytest.fixture
def reserve(tmp_path: Path) -> Reserve:
    return Reserve(tmp_path / "x.db")


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "x.db-reserve"


def disk(monkeypatch: pytest.MonkeyPatch, size: int, free: int) -> None:
    """Give the disk another size, both in bytes."""
    found = SimpleNamespace(f_frsize=1, f_blocks=size, f_bavail=free)
    monkeypatch.setattr(os, "statvfs", lambda path: found)


def test_the_space_is_really_taken(reserve: Reserve, kept: Path) -> None:
    """A file with a hole would free nothing."""
    assert reserve.renew()
    assert kept.stat().st_size == SIZE
    assert kept.stat().st_blocks * 512 >= SIZE
    assert kept.stat().st_mode & 0o777 == 0o600


def test_of_a_small_disk_it_is_an_eighth(
    reserve: Reserve, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1 MiB, 128 KiB."""
    disk(monkeypatch, 1 << 20, 1 << 20)
    assert reserve.renew()
    assert kept.stat().st_size == 128 << 10


@pytest.mark.parametrize(("missing", "made"), [(0, True), (1, False)])
def test_it_leaves_as_much_as_it_takes(
    reserve: Reserve, kept: Path, monkeypatch: pytest.MonkeyPatch, missing: int, made: bool
) -> None:
    """There must be room for it twice."""
    disk(monkeypatch, 1 << 40, 2 * SIZE - missing)
    reserve.renew()
    assert kept.exists() is made


def test_what_is_given_up_is_free_once(reserve: Reserve, kept: Path) -> None:
    """The second time there is nothing."""
    reserve.renew()
    assert reserve.give_up() == SIZE
    assert not kept.exists()
    assert reserve.give_up() == 0


def test_a_full_disk_is_told_until_there_is_room(
    reserve: Reserve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Health reads it: it is well again when the file is there again."""
    reserve.renew()
    reserve.give_up()
    with monkeypatch.context() as full:
        disk(full, 1 << 40, 0)
        assert not reserve.renew()
    assert reserve.renew()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
        yield connection


def test_the_log_gets_three_quarters(
    reserve: Reserve, tmp_path: Path, database: sqlite3.Connection
) -> None:
    """As blocks of its own, so that no other program takes them."""
    log = tmp_path / "x.db-wal"
    before = log.stat().st_size
    reserve.lend(SIZE)
    assert log.stat().st_size == before + SIZE // 4 * 3
    assert log.stat().st_blocks * 512 >= SIZE // 4 * 3


def test_what_is_lent_is_never_read(
    reserve: Reserve, tmp_path: Path, database: sqlite3.Connection
) -> None:
    """A killed server's next start finds what was written before and after, and no more."""
    database.execute("INSERT INTO t VALUES ('before')")
    reserve.lend(SIZE)
    database.execute("INSERT INTO t VALUES ('after')")
    killed = tmp_path / "killed"
    killed.mkdir()
    for file in ("x.db", "x.db-wal"):
        shutil.copy(tmp_path / file, killed / file)
    with contextlib.closing(sqlite3.connect(killed / "x.db")) as found:
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert found.execute("SELECT x FROM t").fetchall() == [("before",), ("after",)]


def test_a_log_that_cannot_have_all_gets_less(
    reserve: Reserve, tmp_path: Path, database: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half, and half of that, until it fits."""
    allocate, log = os.posix_fallocate, tmp_path / "x.db-wal"

    def little(file: int, offset: int, size: int) -> None:
        if size > 8 * LEAST:
            raise OSError
        allocate(file, offset, size)

    monkeypatch.setattr(os, "posix_fallocate", little)
    before = log.stat().st_size
    reserve.lend(SIZE)
    assert 4 * LEAST <= log.stat().st_size - before <= 8 * LEAST


FAILING = (
    "CREATE TRIGGER inserts BEFORE INSERT ON session BEGIN SELECT RAISE(FAIL, 'no'); END",
    "CREATE TRIGGER updates BEFORE UPDATE ON server BEGIN SELECT RAISE(FAIL, 'no'); END",
)


def test_a_store_that_could_not_write_is_asked_to_write(tmp_path: Path) -> None:
    """The write lock alone would be had on a store that takes no change."""

    async def story() -> None:
        async with Database(f"sqlite:///{tmp_path / 'x.db'}") as database:
            store = SessionStore(database)
            await Ledger(database, "one", "boot").begin(1.0)
            for trigger in FAILING:
                await database.run(partial(Connection.exec_driver_sql, statement=trigger))
            await database.answer()  # nothing has failed yet
            with pytest.raises(NoProcess):
                await store.begin_turn(session(), turn())
            with pytest.raises(NoProcess):
                await database.answer()
            await database.run(lambda c: c.exec_driver_sql("DROP TRIGGER updates"))
            await database.answer()

    asyncio.run(story())
