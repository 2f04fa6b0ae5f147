"""Rows that cannot be read: each is its own session's, turn's or key's failure."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.file_store import KEY, session, stored, turn

from samovard.core.errors import Internal
from samovard.core.records import SessionKey
from samovard.edge.identity import new_key
from samovard.store.keys import KeyStore
from samovard.store.ledger import Entry, Ledger
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database

BAD_ROWS = {
    "no JSON": "UPDATE session SET spec = x'7b' WHERE session = 's'",
    "another type": "UPDATE session SET spec = '{}' WHERE session = 's'",
    "no number": "UPDATE session SET usage = '{\"cost_usd\":null}' WHERE session = 's'",
    "a sum that is infinite": "UPDATE session SET usage = "
    "CAST('{\"cost_usd\":1e999}' AS BLOB) WHERE session = 's'",
    "an infinite time": "UPDATE session SET expire_time = 9e999 WHERE session = 's'",
    "a time that is a text": "UPDATE session SET update_time = 'x' WHERE session = 's'",
    "a negative count": "UPDATE session SET turn_count = -1 WHERE session = 's'",
    "a flag that is a text": "UPDATE session SET prompted = 'yes' WHERE session = 's'",
    "a text that is none": "UPDATE session SET agent_session = CAST(x'ff' AS TEXT) "
    "WHERE session = 's'",
}


def spoilt(path: Path, *statements: str) -> None:
    """Change rows as no version of the service does."""
    with contextlib.closing(sqlite3.connect(path / "x.db", isolation_level=None)) as raw:
        for statement in statements:
            raw.execute(statement)


@pytest.mark.parametrize("statement", BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_read_is_that_sessions_failure(tmp_path: Path, statement: str) -> None:
    """It is told with its key, once; others are listed, a page is as long as it was asked to
    be, and the session is blocked and can be deleted."""
    told: list[tuple[str, dict[str, object]]] = []
    others = [SessionKey("acme", name) for name in ("a", "b")]

    async def story() -> None:
        url = f"sqlite:///{tmp_path / 'x.db'}"
        async with Database(url, told=lambda e, **f: told.append((e, f))) as database:
            store = SessionStore(database)
            for time, key in enumerate((*others, KEY), 1):
                await store.begin_turn(session(key, float(time)), turn())
            spoilt(tmp_path, statement)
            for _ in range(2):
                listed = await store.list("acme", None, 2)
                assert sorted(record.key for record in listed) == others
            counted = await store.count()
            assert counted[("acme", "default")] in (2, 3)
            blocked = await store.load(KEY)
            assert blocked is not None
            assert (blocked.key, blocked.blocked) == (KEY, True)
            assert len(blocked.home) == 32
            await store.expired(99.0, 9)
            await store.delete(KEY)
            assert await store.load(KEY) is None

    asyncio.run(story())
    assert told == [("store.bad_row", {"table": "session", "row": KEY})]


def test_a_row_is_told_by_its_first_reader(tmp_path: Path) -> None:
    """The one who loads a session, one who counts or lists sessions, or one who loads a turn."""

    async def told_by(read: Callable[[SessionStore], Awaitable[object]]) -> list[object]:
        told: list[object] = []
        url = f"sqlite:///{tmp_path / 'x.db'}"
        async with Database(url, told=lambda e, **f: told.append(f["table"])) as database:
            with contextlib.suppress(Internal):
                await read(SessionStore(database))
        return told

    async def story() -> None:
        async with Database(f"sqlite:///{tmp_path / 'x.db'}") as database:
            await SessionStore(database).begin_turn(session(), turn())
        spoilt(tmp_path, BAD_ROWS["no JSON"], "UPDATE turn SET report = x'7b'")
        assert await told_by(lambda store: store.load(KEY)) == ["session"]
        assert await told_by(lambda store: store.count()) == ["session"]
        assert await told_by(lambda store: store.list(KEY.tenant, None, 1)) == ["session"]
        assert await told_by(lambda store: store.load_turn(KEY, "t")) == ["turn"]

    asyncio.run(story())


def test_a_row_that_cannot_be_read_keeps_what_can(tmp_path: Path) -> None:
    """Its directory is known, so that closing the session removes it."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        home = "0" * 32
        await store.begin_turn(replace(session(), home=home), turn())
        spoilt(tmp_path, BAD_ROWS["a negative count"])
        record = await store.load(KEY)
        assert record is not None
        assert (record.home, record.spec, record.expire_time) == (home, session().spec, 11.0)

    stored(tmp_path, story)


def test_a_turn_that_cannot_be_read_is_that_turns_failure(tmp_path: Path) -> None:
    """Others of its session are read."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        for name in "tu":
            await store.begin_turn(session(), turn(name))
        spoilt(tmp_path, "UPDATE turn SET report = x'7b' WHERE turn_id = 't'")
        with pytest.raises(Internal) as error:
            await store.load_turn(KEY, "t")
        assert error.value.cause == "bad-row"
        assert await store.load_turn(KEY, "u") == turn("u")

    stored(tmp_path, story)


def test_a_key_that_cannot_be_read_is_no_key(tmp_path: Path) -> None:
    """Others are found and listed."""

    async def story(database: Database) -> None:
        keys = KeyStore(database)
        good, bad = (new_key("acme", b"p", 1.0)[1] for _ in range(2))
        for key in (good, bad):
            await keys.add(key)
        spoilt(tmp_path, f"UPDATE api_key SET expire_time = 'never' WHERE id = '{bad.id}'")
        assert await keys.get(bad.id) is None
        assert await keys.list() == [good]

    stored(tmp_path, story)


def test_a_process_that_cannot_be_read_keeps_no_server_from_starting(tmp_path: Path) -> None:
    """Others are known."""

    async def story(database: Database) -> None:
        ledger = Ledger(database, "one", "boot")
        await ledger.begin(1.0)
        await ledger.add("p", 41, 7)
        await ledger.add("q", 42, 8)
        spoilt(tmp_path, "UPDATE process SET pid = 'x' WHERE process_id = 'p'")
        assert (await ledger.earlier()).entries == (Entry(42, "boot", 8),)

    stored(tmp_path, story)
