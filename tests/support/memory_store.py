"""Records in memory, for a core without a store."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

from samovard.core.errors import NoProcess
from samovard.core.records import DailyUsage, Days, SessionKey, SessionRecord, TurnRecord


@dataclass
class Shelf:
    """Records in memory. `slow` seconds pass in every call; `down` makes them fail.

    `calls` counts those that are under way.
    """

    sessions: dict[SessionKey, SessionRecord] = field(default_factory=dict)
    turns: dict[tuple[SessionKey, str], TurnRecord] = field(default_factory=dict)
    slow: float = 0.001
    down: bool = False
    calls: int = 0

    async def _call(self) -> None:
        self.calls += 1
        try:
            await asyncio.sleep(self.slow)
        finally:
            self.calls -= 1
        if self.down:
            raise NoProcess("the store does not answer", cause="store-down", retry_after=1.0)

    async def load(self, key: SessionKey) -> SessionRecord | None:
        await self._call()
        return self.sessions.get(key)

    async def load_turn(self, key: SessionKey, turn_id: str) -> TurnRecord | None:
        await self._call()
        return self.turns.get((key, turn_id))

    async def begin_turn(self, session: SessionRecord, turn: TurnRecord) -> TurnRecord | None:
        await self._call()
        stored = self.turns.get((session.key, turn.turn_id))
        if stored is None:
            self.sessions[session.key] = session
            self.turns[session.key, turn.turn_id] = turn
        return stored

    async def withdraw(self, key: SessionKey, turn_id: str, session: SessionRecord | None) -> None:
        await self._call()
        self.turns.pop((key, turn_id), None)
        if session is None:
            self.sessions.pop(key, None)
        else:
            self.sessions[key] = session

    async def commit(self, session: SessionRecord, turn: TurnRecord) -> None:
        await self._call()
        self.sessions[session.key] = session
        for where, older in self.turns.items():
            if where[0] == session.key:
                self.turns[where] = replace(older, report=None)
        self.turns[session.key, turn.turn_id] = turn

    async def save(self, session: SessionRecord) -> None:
        await self._call()
        if session.key in self.sessions:  # one that was deleted meanwhile stays deleted
            self.sessions[session.key] = session

    async def list(
        self,
        tenant: str,
        before: tuple[float, str] | None,
        limit: int,
        only: Collection[str] | None = None,
        but: Collection[str] = (),
    ) -> list[SessionRecord]:
        await self._call()
        mine = [
            record
            for (owner, name), record in self.sessions.items()
            if owner == tenant and name not in but and (only is None or name in only)
        ]
        return sorted(mine, key=lambda r: (-r.update_time, r.key.session))[:limit]

    async def expired(
        self, now: float, limit: int, after: SessionKey | None = None
    ) -> Sequence[SessionKey]:
        await self._call()
        over = [key for key, record in self.sessions.items() if record.expire_time <= now]
        return sorted(key for key in over if after is None or key > after)[:limit]

    async def delete(self, key: SessionKey) -> None:
        await self._call()
        self.sessions.pop(key, None)
        self.turns = {k: turn for k, turn in self.turns.items() if k[0] != key}


class NothingUsed:
    """What was used: nothing."""

    async def list(
        self, tenant: str, days: Days, limit: int | None, after: tuple[str, str, str] | None
    ) -> Sequence[DailyUsage]:
        return ()
