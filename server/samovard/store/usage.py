"""What tenants' turns used, summed by day and model: kept when sessions are closed.

A turn is counted in the transaction that stores its end, and only if it had none: what is stored
twice is counted once. Turns that ran when a service was killed are counted as lost by the next one.
Knows the table, and the turns whose end is missing.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
from sqlalchemy import and_, bindparam, func, insert, literal_column, select, tuple_, update

from samovard.core.events import MAX_COST, MAX_COUNT, TurnFinished, Usage
from samovard.core.records import DailyUsage, Days, SessionRecord, TurnRecord
from samovard.store.rows import BadRow, Count, Row, checked
from samovard.store.sqlite.database import Database
from samovard.store.sqlite.prepared import Cursor
from samovard.store.tables import RECORDED
from samovard.store.tables import session as sessions
from samovard.store.tables import turn as turns
from samovard.store.tables import usage as used

MAX_MODELS = 64  # of a tenant and day by name: agents choose these names
MAX_NAME = 256  # characters of a model's name
OTHER = "other"
GIVEN = "given_"  # prefix of what is added to a column
LOST = "lost_"  # prefix of the columns of turns whose end is not known

_KEY = ("tenant", "day", "model")
_SUMS = [column.name for column in used.c if column.name not in _KEY]
_OF_USAGE = Usage.__struct_fields__
_NOTHING: Mapping[str, Any] = dict.fromkeys(_SUMS, 0)


class UsageStore:
    """What was used, in the database; see the core's `UsageRecords`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._add = database.prepared(_ADD, [])
        self._new = database.prepared(insert(used), [*_KEY, *_SUMS])
        self._models = database.query(_MODELS)
        self._recorded = database.query(_RECORDED)
        self._lose = database.prepared(_LOSE, ["state", "reason", "cause"])

    def count(self, cursor: Cursor, session: SessionRecord, turn: TurnRecord) -> None:
        """Count a turn that has just ended, within the transaction that stores its end."""
        tenant, day = session.key.tenant, day_of(session.update_time)
        if turn.report is None:
            lost = {"turns": 1, **msgspec.structs.asdict(turn.estimate)}
            self._count(cursor, tenant, day, session.spec.model, _lost(lost))
            return
        main = _main(turn.report)
        for model, usage in (turn.report.usage_by_model or {"": turn.report.usage}).items():
            sums = {"turns": int(model == main), **msgspec.structs.asdict(usage)}
            self._count(cursor, tenant, day, model, sums)

    async def settle(self) -> int:
        """Count the turns that ran when an earlier service was killed, as lost.

        Return how many there were. Call it while no service runs turns.
        """

        def work(cursor: Cursor) -> int:
            lost: Counter[tuple[str, str]] = Counter()
            for row in self._recorded.run(cursor):
                lost[row["tenant"], day_of(_number(row["update_time"]))] += 1
            for (tenant, day), number in lost.items():
                self._count(cursor, tenant, day, "", _lost({"turns": number}))
            ended = {"state": "lost", "reason": "TURN_LOST", "cause": "server-restarted"}
            return self._lose.run(cursor, ended)

        return await self._database.change(work, "usage")

    async def spent(self, now: float) -> dict[str, float]:
        """Return what each tenant's turns have cost on the day of a time, in US dollars.

        Of lost turns it is an estimate. `now` is in seconds since the epoch.
        """
        today = day_of(now)
        cost: dict[str, float] = {}
        for each in await self.list("", Days(today, today)):
            of_model = each.usage.cost_usd + each.lost_usage.cost_usd
            cost[each.tenant] = cost.get(each.tenant, 0.0) + of_model
        return cost

    async def list(
        self,
        tenant: str,
        days: Days,
        limit: int | None = None,
        after: tuple[str, str, str] | None = None,
    ) -> Sequence[DailyUsage]:
        """Return what a tenant used, or all if it is empty; see `UsageRecords`."""
        query = select(used).where(used.c.day.between(days.first, days.last))
        if tenant:
            query = query.where(used.c.tenant == tenant)
        if after is not None:
            query = query.where(tuple_(used.c.tenant, used.c.day, used.c.model) > after)
        found = self._database.query(query.order_by(used.c.tenant, used.c.day, used.c.model))
        bad: list[tuple[str, ...]] = []
        # The limit is not SQL's: an unreadable row takes up no place in a page.
        every = await self._database.read(
            lambda c: [*islice(_good(found.run(c), bad), limit)], "usage"
        )
        for key in bad:
            self._database.bad_row("usage", *key)
        return every

    def _count(
        self, cursor: Cursor, tenant: str, day: str, model: str, sums: Mapping[str, Any]
    ) -> None:
        model = model[:MAX_NAME]
        sums = {**_NOTHING, **sums}
        given = {GIVEN + name: value for name, value in sums.items()}
        values = {"named_tenant": tenant, "named_day": day, **given}
        if self._add.run(cursor, {**values, "named_model": model}):
            return
        names = self._models.run(cursor, named_tenant=tenant, named_day=day)
        if next(names)["count"] >= MAX_MODELS:
            model = OTHER
            if self._add.run(cursor, {**values, "named_model": model}):
                return
        self._new.run(cursor, {"tenant": tenant, "day": day, "model": model, **sums})


def day_of(seconds: float) -> str:
    """Return the day in UTC of a time in seconds since the epoch."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def _main(report: TurnFinished) -> str:
    """Return the model that cost most: the turn is counted for it."""
    by_model = report.usage_by_model
    return max(
        by_model,
        key=lambda model: (by_model[model].cost_usd, by_model[model].output_tokens, model),
        default="",
    )


def _lost(sums: Mapping[str, Any]) -> dict[str, Any]:
    return {LOST + name: value for name, value in sums.items()}


def _number(value: object) -> float:
    """Return a time that was read, 0 if it is none."""
    return float(value) if isinstance(value, int | float) and 0 <= value <= 1e11 else 0.0


class _Columns(msgspec.Struct):
    tenant: str
    day: str
    model: str
    turns: Count
    lost_turns: Count


def _good(rows: Iterable[Row], bad: list[tuple[str, ...]]) -> Iterator[DailyUsage]:
    for row in rows:
        try:
            yield _read(row)
        except BadRow:
            bad.append(tuple(str(row[name]) for name in _KEY))


def _read(row: Row) -> DailyUsage:
    plain = checked(row, _Columns)
    return DailyUsage(
        plain.tenant,
        plain.day,
        plain.model,
        plain.turns,
        _usage(row, ""),
        plain.lost_turns,
        _usage(row, LOST),
    )


def _usage(row: Row, prefix: str) -> Usage:
    return checked({name: row[prefix + name] for name in _OF_USAGE}, Usage)


def _most(name: str) -> Any:
    return literal_column(repr(MAX_COST if name.endswith("cost_usd") else MAX_COUNT))


# A sum stays within what the contract can hold.
_ADD = (
    update(used)
    .where(
        and_(
            used.c.tenant == bindparam("named_tenant"),
            used.c.day == bindparam("named_day"),
            used.c.model == bindparam("named_model"),
        )
    )
    .values({name: func.min(used.c[name] + bindparam(GIVEN + name), _most(name)) for name in _SUMS})
)
_MODELS = select(func.count().label("count")).where(
    used.c.tenant == bindparam("named_tenant"), used.c.day == bindparam("named_day")
)
_RECORDED = (
    select(turns.c.tenant, sessions.c.update_time)
    .select_from(turns)
    .join(
        sessions,
        and_(turns.c.tenant == sessions.c.tenant, turns.c.session == sessions.c.session),
    )
    .where(turns.c.state == RECORDED)
)
_LOSE = update(turns).where(turns.c.state == RECORDED)
