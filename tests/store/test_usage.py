"""What was used, by tenant, day and model, on real files."""

import asyncio
import sqlite3
from dataclasses import replace
from pathlib import Path

from support.file_store import KEY, session, stored, turn

from samovard.core.events import MAX_COUNT, Outcome, TurnFinished, Usage
from samovard.core.records import DailyUsage, Days, SessionKey, TurnRecord
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database
from samovard.store.usage import MAX_MODELS, OTHER, UsageStore

EVER = Days("1970-01-01", "9999-12-31")
DAY, MONDAY, TUESDAY = 86_400.0, "1970-01-05", "1970-01-06"
SMALL, LARGE = Usage(1, 2, 3, 4, 0.25), Usage(10, 20, 30, 40, 0.5)


def report(**by_model: Usage) -> TurnFinished:
    return TurnFinished(Outcome.COMPLETED, usage_by_model=by_model)


async def ran(
    database: Database,
    ended: TurnRecord,
    key: SessionKey = KEY,
    time: float = 4 * DAY,
    times: int = 1,
) -> None:
    """Begin a turn, and store its end so many times."""
    store, record = SessionStore(database), session(key, time)
    await store.begin_turn(record, turn(ended.turn_id))
    for _ in range(times):
        await store.commit(record, ended)


def finished(turn_id: str, **by_model: Usage) -> TurnRecord:
    return turn(turn_id, "finished", report=report(**by_model))


async def everything(database: Database, tenant: str = "") -> list[DailyUsage]:
    return [*await UsageStore(database).list(tenant, EVER)]


def entry(model: str, turns: int, usage: Usage, day: str = MONDAY) -> DailyUsage:
    return DailyUsage("acme", day, model, turns, usage, 0, Usage())


def test_turns_are_summed_by_day_and_model(tmp_path: Path) -> None:
    """A turn of two models counts for the one that cost most."""

    async def story(database: Database) -> None:
        await ran(database, finished("a", m=SMALL))
        await ran(database, finished("b", m=SMALL, n=LARGE))
        await ran(database, finished("c", m=LARGE), time=5 * DAY)
        assert await everything(database) == [
            entry("m", 1, SMALL + SMALL),
            entry("n", 1, LARGE),
            entry("m", 1, LARGE, TUESDAY),
        ]

    stored(tmp_path, story)


def test_an_end_that_is_stored_twice_is_counted_once(tmp_path: Path) -> None:
    """Its report is kept, too: a write may be made again after it was made."""

    async def story(database: Database) -> None:
        await ran(database, finished("a", m=SMALL), times=2)
        assert await everything(database) == [entry("m", 1, SMALL)]
        found = await SessionStore(database).load_turn(KEY, "a")
        assert found is not None
        assert found.report == report(m=SMALL)

    stored(tmp_path, story)


def test_a_lost_turn_counts_with_its_estimate(tmp_path: Path) -> None:
    """Apart from turns that told what they used."""

    async def story(database: Database) -> None:
        await ran(database, turn("a", "lost", reason="TURN_LOST", estimate=SMALL))
        assert await everything(database) == [DailyUsage("acme", MONDAY, "", 0, Usage(), 1, SMALL)]

    stored(tmp_path, story)


def test_a_turn_that_ran_when_the_service_was_killed_is_lost(tmp_path: Path) -> None:
    """It is counted at the next start, on the day when it began, and at no later one."""

    async def story(database: Database) -> None:
        store, usage = SessionStore(database), UsageStore(database)
        await ran(database, finished("a", m=SMALL))
        await store.begin_turn(session(time=5 * DAY), turn("b"))
        assert [await usage.settle(), await usage.settle()] == [1, 0]
        lost = DailyUsage("acme", TUESDAY, "", 0, Usage(), 1, Usage())
        assert await everything(database) == [entry("m", 1, SMALL), lost]
        found = await store.load_turn(KEY, "b")
        assert found is not None
        assert (found.state, found.reason, found.cause) == ("lost", "TURN_LOST", "server-restarted")

    stored(tmp_path, story)


def test_what_was_used_outlives_its_session(tmp_path: Path) -> None:
    """And a turn that was withdrawn never counts."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        await ran(database, finished("a", m=SMALL))
        await store.begin_turn(session(time=4 * DAY), turn("b"))
        await store.withdraw(KEY, "b", session(time=4 * DAY))
        await store.delete(KEY)
        assert await everything(database) == [entry("m", 1, SMALL)]

    stored(tmp_path, story)


def test_models_without_end_are_counted_together(tmp_path: Path) -> None:
    """Agents choose the names: a day of a tenant has so many rows and no more."""

    async def story(database: Database) -> None:
        for number in range(MAX_MODELS + 2):
            await ran(database, finished(str(number), **{f"m{number}": SMALL}))
        await ran(database, finished("again", m0=SMALL))
        rows = {row.model: row.turns for row in await everything(database)}
        assert len(rows) == MAX_MODELS + 1
        assert (rows["m0"], rows[OTHER]) == (2, 2)

    stored(tmp_path, story)


def test_a_sum_stays_within_what_the_contract_can_hold(tmp_path: Path) -> None:
    """The row can be read whatever agents say."""

    async def story(database: Database) -> None:
        for name in ("a", "b"):
            await ran(database, finished(name, m=Usage(MAX_COUNT, 1)))
        assert await everything(database) == [entry("m", 2, Usage(MAX_COUNT, 2))]

    stored(tmp_path, story)


def test_a_list_is_of_a_tenant_and_of_days(tmp_path: Path) -> None:
    """Both ends are included; a place to go on from and a limit make pages."""

    async def story(database: Database) -> None:
        other = replace(entry("m", 1, SMALL), tenant="zeta")
        await ran(database, finished("a", m=SMALL))
        await ran(database, finished("b", m=SMALL), time=5 * DAY)
        await ran(database, finished("c", m=SMALL), key=SessionKey("zeta", "s"))
        usage = UsageStore(database)
        first, second = entry("m", 1, SMALL), entry("m", 1, SMALL, TUESDAY)
        assert [*await usage.list("acme", EVER)] == [first, second]
        assert [*await usage.list("acme", Days(TUESDAY, TUESDAY))] == [second]
        assert [*await usage.list("", Days(MONDAY, MONDAY))] == [first, other]
        page = await usage.list("", EVER, 2)
        assert [*page] == [first, second]
        assert [*await usage.list("", EVER, 2, ("acme", TUESDAY, "m"))] == [other]

    stored(tmp_path, story)


def test_a_row_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    """It is told, and takes up no place in a page."""
    told: list[tuple[str, dict[str, object]]] = []

    async def fill(database: Database) -> None:
        await ran(database, finished("a", m=SMALL, n=LARGE))

    stored(tmp_path, fill)
    with sqlite3.connect(tmp_path / "x.db") as connection:
        connection.execute("UPDATE usage SET turns = 'many' WHERE model = 'm'")

    async def story(database: Database) -> None:
        assert [*await UsageStore(database).list("", EVER, 1)] == [entry("n", 1, LARGE)]

    async def read() -> None:
        url = f"sqlite:///{tmp_path / 'x.db'}"
        async with Database(url, told=lambda name, **said: told.append((name, said))) as database:
            await story(database)

    asyncio.run(read())
    assert [name for name, _ in told] == ["store.bad_row"]
