"""The database's calls as they are measured."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from support.file_store import KEY, session, turn

from samovard.core.errors import NoProcess
from samovard.core.events import Outcome, TurnFinished
from samovard.edge.identity import new_key
from samovard.store.keys import KeyStore
from samovard.store.ledger import Ledger
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.checkpoints import EVERY, MOST, Checkpoints
from samovard.store.sqlite.database import Database, Told, _prepare


def test_each_call_is_measured(tmp_path: Path) -> None:
    """Under its name, with the time that it took, and whether the database did it."""
    heard: list[tuple[str, float, str]] = []

    async def story() -> None:
        url = f"sqlite:///{tmp_path / 'x.db'}"
        async with Database(url, lambda *call: heard.append(call)) as database:
            store = SessionStore(database)
            await store.begin_turn(session(), turn())
            await store.begin_turn(session(), turn())  # taken: the store has answered all the same
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
    assert all(seconds > 0 for _, seconds, _ in heard)


def test_no_commit_carries_the_log_over(tmp_path: Path) -> None:
    """SQLite itself would, in one of some hundred turns, and let it wait for the disk."""

    async def story() -> None:
        async with Database(f"sqlite:///{tmp_path / 'x.db'}") as database:
            pragma = "PRAGMA wal_autocheckpoint"
            assert await database.run(lambda c: c.exec_driver_sql(pragma).scalar()) == 0

    asyncio.run(story())


@pytest.fixture
def connections(tmp_path: Path) -> Iterator[Callable[[], sqlite3.Connection]]:
    with contextlib.ExitStack() as stack:

        def connect() -> sqlite3.Connection:
            connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
            stack.enter_context(contextlib.closing(connection))
            _prepare(connection, None)
            return connection

        yield connect


def write(writer: sqlite3.Connection, checkpoints: Checkpoints, times: int) -> None:
    for _ in range(times):
        writer.execute("UPDATE t SET x = x + 1")
        checkpoints.wrote(writer.cursor())


def test_the_log_begins_anew_however_much_is_written(
    tmp_path: Path, connections: Callable[[], sqlite3.Connection]
) -> None:
    """Without a pause of the writer, and without its thread, it has its bound and a little.
    What is being read holds it up, until it has been read."""
    writer, reader = connections(), connections()
    writer.execute("CREATE TABLE t (x)")
    writer.execute("INSERT INTO t VALUES (0)")
    log = tmp_path / "x.db-wal"
    with Checkpoints(tmp_path / "x.db", every=10**9, most=100) as checkpoints:
        write(writer, checkpoints, 1000)
        assert log.stat().st_size < 150 * 4096
        reader.execute("BEGIN")
        reader.execute("SELECT x FROM t").fetchall()
        write(writer, checkpoints, 1000)
        assert log.stat().st_size > 900 * 4096
        reader.execute("COMMIT")
        write(writer, checkpoints, 101)
        size = log.stat().st_size
        write(writer, checkpoints, 1000)
        assert log.stat().st_size == size


def test_the_log_is_carried_over_beside_the_writer(
    tmp_path: Path, connections: Callable[[], sqlite3.Connection]
) -> None:
    """The thread does it, each time that it is due."""
    writer = connections()
    writer.execute("CREATE TABLE t (x)")
    writer.execute("INSERT INTO t VALUES (0)")
    with Checkpoints(tmp_path / "x.db", every=20, most=10**9) as checkpoints:
        write(writer, checkpoints, 20)
    # Its pages are in the database itself: one who knows nothing of the log finds them there.
    database = f"{(tmp_path / 'x.db').as_uri()}?immutable=1"
    with contextlib.closing(sqlite3.connect(database, uri=True)) as alone:
        assert alone.execute("SELECT x FROM t").fetchall() == [(20,)]


def opened(path: Path, story: Callable[[Database], Awaitable[None]], told: Told) -> None:
    async def run() -> None:
        async with Database(f"sqlite:///{path / 'x.db'}", told=told) as database:
            await story(database)

    asyncio.run(run())


def test_writes_that_are_no_turns_count_as_well(tmp_path: Path) -> None:
    """The log stays within its bound also where only processes start and end."""

    async def story(database: Database) -> None:
        ledger = Ledger(database, "server", "boot")
        for number in range(4000):
            await ledger.add(f"p{number}", number, number)
            await ledger.remove(f"p{number}")
        assert (tmp_path / "x.db-wal").stat().st_size < 2 * MOST * 4096

    opened(tmp_path, story, lambda event, **fields: None)


def test_no_read_waits_for_who_holds_the_write_lock(tmp_path: Path) -> None:
    """Nor for a write of our own that waits for it; what was written before is seen."""

    async def story(database: Database) -> None:
        store, keys = SessionStore(database), KeyStore(database)
        _, key = new_key("acme", b"p", 1.0)
        await keys.add(key)
        await store.begin_turn(session(), turn())
        other = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        with contextlib.closing(other):
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(store.save(session()))
            assert await store.load(KEY) == session()
            assert await store.load_turn(KEY, "t") == turn()
            assert await store.list("acme", None, 9) == [session()]
            assert await store.expired(99.0, 9) == [KEY]
            assert await store.count() == {("acme", "default"): 1}
            assert await keys.get(key.id) == key
            assert await keys.list() == [key]
            assert not writing.done()
            other.execute("ROLLBACK")
        await writing

    opened(tmp_path, story, lambda event, **fields: None)


class Lines(list[tuple[str, dict[str, object]]]):
    """What was told."""

    def __call__(self, event: str, **fields: object) -> None:
        self.append((event, fields))

    @property
    def events(self) -> list[str]:
        return [event for event, _ in self]


@pytest.mark.parametrize("moved", [False, True])
def test_a_store_that_is_overwritten_is_noticed(tmp_path: Path, moved: bool) -> None:
    """An older backup whose bytes are put into the same file, also while nothing is written,
    and after the log was carried over."""
    told, path = Lines(), tmp_path / "x.db"

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await store.begin_turn(session(), turn())
        other = sqlite3.connect(path)
        with contextlib.closing(other), contextlib.closing(sqlite3.connect(tmp_path / "b")) as to:
            other.backup(to)
            await store.begin_turn(session(), turn("u"))
            await database.answer()
            if moved:
                other.execute("PRAGMA wal_checkpoint(PASSIVE)")
                await database.answer()
        path.write_bytes((tmp_path / "b").read_bytes())
        for _ in range(2):
            with pytest.raises(NoProcess, match="overwritten"):
                await database.answer()

    opened(tmp_path, story, told)
    assert told == [("store.replaced", {"error": "the store was overwritten"})]


def test_what_is_overwritten_between_two_checkpoints_of_ours_is_noticed(tmp_path: Path) -> None:
    """Also where so much is written that each look finds another checkpoint."""
    told, path = Lines(), tmp_path / "x.db"

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await store.begin_turn(session(), turn())
        await database.answer()
        path.write_bytes(path.read_bytes())
        for number in range(2 * EVERY):
            await store.begin_turn(session(), turn(str(number)))
        with pytest.raises(NoProcess, match="overwritten"):
            await database.answer()

    opened(tmp_path, story, told)
    assert told == [("store.replaced", {"error": "the store was overwritten"})]


def test_a_store_that_only_sqlite_writes_is_never_called_overwritten(tmp_path: Path) -> None:
    """Whatever carries the log over, and however often the log begins anew."""
    told = Lines()

    async def story(database: Database) -> None:
        store = SessionStore(database)
        with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as other:
            for number in range(1500):
                await store.begin_turn(session(), turn(str(number)))
                if number % 7 == 0:
                    other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
                if number % 3 == 0:
                    await database.answer()
            other.execute("INSERT INTO server VALUES ('another', 1.0)")
            other.commit()
        await database.answer()

    opened(tmp_path, story, told)
    assert told == []


def test_a_log_that_is_taken_away_is_noticed(tmp_path: Path) -> None:
    """What is in it is lost with the next start."""
    told = Lines()

    async def story(database: Database) -> None:
        await SessionStore(database).begin_turn(session(), turn())
        (tmp_path / "x.db-wal").rename(tmp_path / "away")
        with pytest.raises(NoProcess, match="gone"):
            await database.answer()
        (tmp_path / "away").rename(tmp_path / "x.db-wal")
        await database.answer()

    opened(tmp_path, story, told)
    assert "store.replaced" in told.events


def test_a_full_database_is_told_once_and_read_all_the_same(tmp_path: Path) -> None:
    """Until it takes writes again; one that may not grow is full, as on a full disk."""
    told = Lines()

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await store.begin_turn(session(), turn())
        await database.answer()
        await database.run(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1"))
        large = TurnFinished(Outcome.COMPLETED, result="x" * 100_000)
        for _ in range(3):
            with pytest.raises(NoProcess):
                await store.commit(session(), turn(state="finished", report=large))
        assert await store.load(KEY) == session()
        await database.run(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1000000"))
        await store.commit(session(), turn(state="finished", report=large))
        await database.answer()

    opened(tmp_path, story, told)
    (line,) = told
    assert line == (
        "store.failed",
        {"operation": "commit", "error": "database or disk is full"},
    )
