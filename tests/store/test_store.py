"""The store, on real files."""

import asyncio
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, inspect
from sqlalchemy.engine import Engine
from sqlalchemy.pool import NullPool
from support.file_store import KEY, REPORT, nothing, session, stored, turn

from samovard.core.errors import Misconfigured, NoProcess
from samovard.core.records import SessionKey
from samovard.edge.identity import new_key
from samovard.store import migrations
from samovard.store.keys import KeyStore
from samovard.store.ledger import Entry, Ledger
from samovard.store.migrations import STEPS, SchemaTooNew
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database
from samovard.store.tables import metadata


def test_record_makes_the_session_with_its_turn(tmp_path: Path) -> None:
    """What was recorded is there, in every field."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        assert await store.begin_turn(session(), turn()) is None
        assert await store.load(KEY) == session()
        assert await store.load_turn(KEY, "t") == turn()

    stored(tmp_path, story)


def test_a_turn_is_recorded_once(tmp_path: Path) -> None:
    """A turn that is there is given back, and nothing changes."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await store.begin_turn(session(), turn())
        again = await store.begin_turn(replace(session(), turn_count=9), turn(digest=b"other"))
        assert again == turn()
        assert await store.load(KEY) == session()

    stored(tmp_path, story)


def test_withdraw_undoes_record(tmp_path: Path) -> None:
    """The session is as it was, or was never there."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await store.begin_turn(session(), turn("a"))
        await store.begin_turn(replace(session(), turn_count=2), turn("b"))
        await store.withdraw(KEY, "b", session())
        assert await store.load(KEY) == session()
        assert await store.load_turn(KEY, "b") is None
        await store.withdraw(KEY, "a", None)
        assert await store.load(KEY) is None
        assert await store.load_turn(KEY, "a") is None

    stored(tmp_path, story)


def test_only_the_latest_turn_keeps_its_report(tmp_path: Path) -> None:
    """Outcomes stay; the report is held for the latest turn alone."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        for name in ("a", "b"):
            await store.begin_turn(session(), turn(name))
            await store.commit(session(), turn(name, "finished", last_sequence=5, report=REPORT))
        first, second = [await store.load_turn(KEY, name) for name in ("a", "b")]
        assert first == turn("a", "finished", last_sequence=5)
        assert second == turn("b", "finished", last_sequence=5, report=REPORT)

    stored(tmp_path, story)


def test_delete_forgets_a_session_and_its_turns(tmp_path: Path) -> None:
    """Nothing of a closed session is left; another tenant's of that name is untouched."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        theirs = SessionKey("blue", "s")
        await store.begin_turn(session(), turn())
        await store.begin_turn(session(theirs), turn())
        await store.delete(KEY)
        await store.delete(KEY)
        assert await store.load_turn(KEY, "t") is None
        assert await store.load(theirs) == session(theirs)
        assert await store.load_turn(theirs, "t") == turn()

    stored(tmp_path, story)


def test_sessions_are_listed_latest_first(tmp_path: Path) -> None:
    """Latest first, equal times by name, a tenant's own only, from a cursor on."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        for name, time in (("a", 1.0), ("b", 3.0), ("c", 2.0), ("d", 2.0)):
            await store.begin_turn(session(SessionKey("acme", name), time), turn())
        await store.begin_turn(session(SessionKey("blue", "z"), 9.0), turn())
        everything = await store.list("acme", None, 10)
        assert [record.key.session for record in everything] == ["b", "c", "d", "a"]
        rest = await store.list("acme", (2.0, "c"), 1)
        assert [record.key.session for record in rest] == ["d"]
        only = await store.list("acme", (2.0, "c"), 10, ["b", "d", "a", "z", "x"])
        assert [record.key.session for record in only] == ["d", "a"]
        but = await store.list("acme", None, 10, None, ["b", "d", "x"])
        assert [record.key.session for record in but] == ["c", "a"]
        assert await store.list("acme", None, 10, []) == []

    stored(tmp_path, story)


def test_what_is_stored_survives(tmp_path: Path) -> None:
    """Another opening sees all; migrations run once."""

    async def first(database: Database) -> None:
        await SessionStore(database).begin_turn(session(), turn())

    async def second(database: Database) -> None:
        assert await SessionStore(database).load(KEY) == session()

    stored(tmp_path, first)
    stored(tmp_path, second)
    with sqlite3.connect(tmp_path / "x.db") as raw:
        versions = raw.execute("SELECT version FROM schema_version").fetchall()
    raw.close()
    assert versions == [(number + 1,) for number in range(len(STEPS))]


def test_a_later_schema_is_refused(tmp_path: Path) -> None:
    """A store of a later version is left alone."""

    stored(tmp_path, nothing)
    raw = sqlite3.connect(tmp_path / "x.db")
    raw.execute("INSERT INTO schema_version VALUES (99)")
    raw.commit()
    raw.close()
    with pytest.raises(SchemaTooNew, match="99") as error:
        stored(tmp_path, nothing)
    # One of ours: the command line tells it in one line.
    assert isinstance(error.value, Misconfigured)


def schema(engine: Engine) -> dict[str, object]:
    """Gives all that is known of each table's columns, keys and indexes."""
    seen = inspect(engine)
    return {
        name: (
            str(seen.get_columns(name)),
            seen.get_pk_constraint(name)["constrained_columns"],
            str(seen.get_foreign_keys(name)),
            sorted((str(i["name"]), i["column_names"]) for i in seen.get_indexes(name)),
        )
        for name in set(seen.get_table_names()) - {"schema_version"}
    }


def test_the_steps_lead_to_the_tables(tmp_path: Path) -> None:
    """A store that was migrated has what the code's tables say, and nothing else."""

    stored(tmp_path, nothing)
    made = create_engine(f"sqlite:///{tmp_path / 'made.db'}", poolclass=NullPool)
    metadata.create_all(made)
    migrated = create_engine(f"sqlite:///{tmp_path / 'x.db'}", poolclass=NullPool)
    assert schema(migrated) == schema(made)


def test_an_earlier_store_is_taken_further(tmp_path: Path) -> None:
    """A store of the first schema keeps what it holds and gets the later steps."""
    raw = sqlite3.connect(tmp_path / "x.db")
    for statement in (*STEPS[0], "CREATE TABLE schema_version (version INTEGER)"):
        raw.execute(statement)
    raw.execute("INSERT INTO schema_version VALUES (1)")
    raw.execute("INSERT INTO api_key VALUES ('id', 'acme', 'session.read', x'00', 1.0, NULL, NULL)")
    raw.commit()
    raw.close()

    async def story(database: Database) -> None:
        assert [key.id for key in await KeyStore(database).list()] == ["id"]
        indexes = "SELECT count(*) FROM sqlite_master WHERE name = 'turn_with_report'"
        assert await database.run(lambda c: c.exec_driver_sql(indexes).scalar()) == 1

    stored(tmp_path, story)


def test_a_step_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps are one transaction: the store stays as it was."""

    monkeypatch.setattr(migrations, "STEPS", (*STEPS, ("CREATE TABLE a (b)", "nonsense")))
    with pytest.raises(NoProcess, match="syntax error"):
        stored(tmp_path, nothing)
    raw = sqlite3.connect(tmp_path / "x.db")
    assert raw.execute("SELECT name FROM sqlite_master").fetchall() == []
    raw.close()


def test_a_store_that_cannot_be_opened_is_down(tmp_path: Path) -> None:
    """What is no database, or has no directory, is told in a sentence without its path."""

    before = {*threading.enumerate()}  # one of them may end meanwhile
    (tmp_path / "x.db").write_bytes(b"not a database" * 100)
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(NoProcess, match="cannot be opened") as error:
            stored(path, nothing)
        assert error.value.cause == "store-down"
        assert str(tmp_path) not in error.value.message
    assert {*threading.enumerate()} <= before


def test_the_stores_files_are_their_owners_alone(tmp_path: Path) -> None:
    """Answers and keys' MACs are in them: nobody else reads them."""

    async def story(database: Database) -> None:
        await SessionStore(database).begin_turn(session(), turn())
        modes = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
        assert modes == dict.fromkeys(("x.db", "x.db-wal", "x.db-shm"), 0o600)

    stored(tmp_path, story)


def test_a_store_that_is_locked_is_down_until_it_is_not(tmp_path: Path) -> None:
    """Another writer makes calls fail after a while, not for ever."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await database.run(lambda c: c.exec_driver_sql("PRAGMA busy_timeout = 20"))
        writer = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
        try:
            writer.execute("BEGIN IMMEDIATE")
            for _ in range(2):
                with pytest.raises(NoProcess, match="does not answer"):
                    await store.begin_turn(session(), turn())
            writer.execute("ROLLBACK")
        finally:
            writer.close()
        assert await store.begin_turn(session(), turn()) is None

    stored(tmp_path, story)


def test_what_is_deleted_stays_deleted(tmp_path: Path) -> None:
    """A session that is closed does not come back by what is stored of it late."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await store.begin_turn(session(), turn())
        await store.delete(KEY)
        await store.save(replace(session(), blocked=True))
        await store.commit(session(), turn(state="finished", report=REPORT))
        assert await store.load(KEY) is None
        assert await store.load_turn(KEY, "t") is None

    stored(tmp_path, story)


def test_a_close_that_is_cancelled_leaves_no_thread(tmp_path: Path) -> None:
    """The store's thread and connection end also when nobody waits for that any more."""

    async def story() -> None:
        database = await Database(f"sqlite:///{tmp_path / 'x.db'}").__aenter__()
        closing = asyncio.ensure_future(database.__aexit__(None, None, None))
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing

    before = {*threading.enumerate()}  # one of them may end meanwhile
    asyncio.run(story())
    assert {*threading.enumerate()} <= before


def test_a_store_that_fails_is_down(tmp_path: Path) -> None:
    """A failing database refuses turns, which may be repeated."""

    async def story(database: Database) -> None:
        await database.run(lambda c: c.exec_driver_sql("DROP TABLE turn"))
        with pytest.raises(NoProcess) as error:
            await SessionStore(database).load_turn(KEY, "t")
        assert (error.value.cause, error.value.retry_after) == ("store-down", 1.0)

    stored(tmp_path, story)


def test_a_failed_call_leaves_nothing_half_done(tmp_path: Path) -> None:
    """Each call is one transaction."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await database.run(lambda c: c.exec_driver_sql("DROP TABLE turn"))
        await database.run(
            lambda c: c.exec_driver_sql("CREATE TABLE turn (tenant, session, turn_id)")
        )
        with pytest.raises(NoProcess):
            await store.begin_turn(session(), turn())
        assert await store.load(KEY) is None

    stored(tmp_path, story)


def test_no_thread_is_left(tmp_path: Path) -> None:
    """The store's thread ends with it."""

    async def story(database: Database) -> None:
        await SessionStore(database).load(KEY)

    before = {*threading.enumerate()}  # one of them may end meanwhile
    stored(tmp_path, story)
    assert {*threading.enumerate()} <= before


def test_the_ledger_tells_what_earlier_servers_left(tmp_path: Path) -> None:
    """Processes that were not struck off are known to the next server, once."""

    async def first(database: Database) -> None:
        ledger = Ledger(database, "one", "boot")
        await ledger.begin(1.0)
        await ledger.add("p", 41, 7)
        await ledger.add("q", 42, 8)
        await ledger.remove("p")

    async def second(database: Database) -> None:
        ledger = Ledger(database, "two", "boot")
        earlier = await ledger.earlier()
        assert earlier.server_ids == ("one",)
        assert earlier.entries == (Entry(42, "boot", 8),)
        await ledger.begin(2.0)
        assert (await ledger.earlier()).entries == ()

    stored(tmp_path, first)
    stored(tmp_path, second)


def test_keys_are_stored_listed_and_revoked(tmp_path: Path) -> None:
    """A key is found by its id, listed by tenant, and no longer valid once revoked."""

    async def story(database: Database) -> None:
        keys = KeyStore(database)
        _, mine = new_key("acme", b"p", 1.0)
        _, theirs = new_key("blue", b"p", 2.0, expire_time=3.0)
        for key in (mine, theirs):
            await keys.add(key)
        assert await keys.get(mine.id) == mine
        assert await keys.list("blue") == [theirs]
        assert await keys.list() == [mine, theirs]
        assert (theirs.valid(2.5), theirs.valid(3.0)) == (True, False)
        assert await keys.revoke("acme", theirs.id, 5.0) == 0
        assert await keys.revoke("acme", None, 5.0) == 1
        revoked = await keys.get(mine.id)
        assert revoked is not None
        assert not revoked.valid(5.0)

    stored(tmp_path, story)


def test_sessions_whose_time_is_over_are_found(tmp_path: Path) -> None:
    """Of every tenant, by their expiry."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        for tenant, time in (("acme", 1.0), ("blue", 5.0)):
            await store.begin_turn(session(SessionKey(tenant, "s"), time), turn())
        assert await store.expired(10.9, 9) == []
        assert await store.expired(11.0, 9) == [SessionKey("acme", "s")]
        assert await store.expired(99.0, 1) == [SessionKey("acme", "s")]
        assert await store.expired(99.0, 9, SessionKey("acme", "s")) == [SessionKey("blue", "s")]
        assert await store.expired(99.0, 9, SessionKey("blue", "s")) == []

    stored(tmp_path, story)
