"""The database's calls as they are measured."""

import asyncio
from pathlib import Path

import pytest
from test_store import KEY, session, turn

from samovard.core.errors import NoProcess
from samovard.store.database import Database
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
