"""A store in a file, and records to put into it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from samovard.core.events import Outcome, TurnFinished, Usage
from samovard.core.records import SessionKey, SessionRecord, Spec, TurnRecord
from samovard.store.sqlite.database import Database

KEY = SessionKey("acme", "s")
REPORT = TurnFinished(Outcome.COMPLETED, result="done", usage_by_model={"m": Usage(1, 2)})


def session(key: SessionKey = KEY, time: float = 1.0) -> SessionRecord:
    spec = Spec(profile="default", labels={"a": "b"})
    return SessionRecord(key, spec, "home", "agent", time, time, time + 10)


def turn(turn_id: str = "t", state: str = "recorded", **fields: object) -> TurnRecord:
    return replace(TurnRecord(turn_id, b"digest", state), **fields)  # type: ignore[arg-type]


def stored(path: Path, story: Callable[[Database], Awaitable[None]]) -> None:
    async def run() -> None:
        async with Database(f"sqlite:///{path / 'x.db'}") as database:
            await story(database)

    asyncio.run(run())


async def nothing(database: Database) -> None:
    """Open and close it."""
