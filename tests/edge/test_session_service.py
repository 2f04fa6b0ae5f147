"""Sessions are listed by one question to the store, whatever is asked for."""

from collections.abc import Collection
from pathlib import Path

import pytest
from sqlalchemy.dialects import sqlite
from support.core_runner import story
from support.file_store import stored
from support.memory_store import NothingUsed, Shelf
from support.world import World, passes

from samovar.v1 import session_pb2 as pb
from samovard.core.records import SessionKey, SessionRecord, Spec
from samovard.edge.pages import Pages
from samovard.edge.session_service import SessionService
from samovard.store.sessions import page
from samovard.store.sqlite.database import Database

STATE = pb.SessionInfo.State


class Asked(Shelf):
    """A store in memory that notes how many records it was asked for, and how many it gave."""

    asked: list[tuple[int, int]]

    async def list(
        self,
        tenant: str,
        before: tuple[float, str] | None,
        limit: int,
        only: Collection[str] | None = None,
        but: Collection[str] = (),
    ) -> list[SessionRecord]:
        found = await super().list(tenant, before, limit, only, but)
        self.asked.append((limit, len(found)))
        return found


async def listed(w: World, state: pb.SessionInfo.State.ValueType, size: int) -> list[str]:
    """Return the names of one page."""
    service = SessionService(w.sessions, NothingUsed(), Pages(b"key", w.wall))
    request, response = (
        pb.ListSessionsRequest(state=state, page_size=size),
        pb.ListSessionsResponse(),
    )
    await service._list("acme", request, response)
    return [session.session_id for session in response.sessions]


STATES = {
    "STATE_WARM": ["warm"],
    "STATE_RUNNING": ["running"],
    "STATE_INPUT_REQUIRED": [],
    "STATE_CLOSED": [],
    "STATE_SUSPENDED": ["ended", "old-0", "old-1"],
    "STATE_UNSPECIFIED": ["running", "warm", "ended"],
}


def shelf() -> Asked:
    """Return a store with fifty sessions of long ago."""
    made = Asked()
    made.asked = []
    for number in range(50):
        key = SessionKey("acme", f"old-{number}")
        made.sessions[key] = SessionRecord(key, Spec(), "0" * 32, "", 1.0, 1000.0 - number, 2e9)
    return made


@pytest.mark.parametrize("state", STATES)
def test_a_page_of_a_state_is_one_question(state: str) -> None:
    """The store filters: it is asked once, for no more than the page, and gives nothing else."""

    @story(slots=3, shelf=shelf())
    async def test(w: World) -> None:
        assert isinstance(w.shelf, Asked)
        await w.turn(session="ended")
        w.stage.last.die()
        await passes(1.0)
        await w.turn(session="warm")
        await passes(1.0)
        running = await w.send(session="running")
        await w.running(actors=3)
        names = STATES[state]
        assert await listed(w, STATE.Value(state), 3) == names
        assert w.shelf.asked == [(3, len(names))]
        async with running:
            pass

    test()


@pytest.mark.parametrize(
    ("before", "only", "but", "plan"),
    [
        (None, None, (), "session_by_use (tenant=?)"),
        ((2.0, "c"), None, (), "session_by_use (tenant=? AND update_time<?)"),
        ((2.0, "c"), None, ["a", "b"], "session_by_use (tenant=? AND update_time<?)"),
        (None, ["a", "b"], (), "sqlite_autoindex_session_1 (tenant=? AND session=?)"),
        ((2.0, "c"), ["a", "b"], (), "sqlite_autoindex_session_1 (tenant=? AND session=?)"),
    ],
)
def test_a_page_begins_in_an_index(
    tmp_path: Path,
    before: tuple[float, str] | None,
    only: list[str] | None,
    but: list[str],
    plan: str,
) -> None:
    """However many sessions the tenant has: none before the page or of another name is read."""

    async def story(database: Database) -> None:
        query = page("acme", before, only, but).compile(
            dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True}
        )
        told = await database.read(
            lambda c: c.execute(f"EXPLAIN QUERY PLAN {query}").fetchall(), "list"
        )
        assert plan in told[0][-1]

    stored(tmp_path, story)
