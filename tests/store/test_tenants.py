"""Tenants in the store, and which credentials are in force, on real files."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.file_store import session, stored, turn

from samovard.edge.identity import new_key
from samovard.store.keys import KeyRecord, KeyStore
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database
from samovard.store.tenants import InForce, TenantRecord, TenantStore


def key(tenant: str = "acme", ends: float | None = None, revoked: float | None = None) -> KeyRecord:
    _, record = new_key(tenant, b"pepper" * 6, 0.0, ends)
    return replace(record, revoke_time=revoked)


def test_a_tenant_keeps_its_first_time_and_its_last_note(tmp_path: Path) -> None:
    """Disabled and enabled again, with a note or without one."""

    async def story(database: Database) -> None:
        store = TenantStore(database)
        await store.put("acme", 1.0, enabled=False, note="unpaid")
        assert await store.list(9.0) == [TenantRecord("acme", False, 1.0, "unpaid", 0, 0)]
        await store.put("acme", 2.0, enabled=True)
        assert await store.list(9.0) == [TenantRecord("acme", True, 1.0, "unpaid", 0, 0)]
        await store.put("acme", 3.0, enabled=True, note="")
        assert await store.list(9.0) == [TenantRecord("acme", True, 1.0, "", 0, 0)]

    stored(tmp_path, story)


def test_a_tenant_with_a_key_or_a_session_is_listed_though_it_was_never_named(
    tmp_path: Path,
) -> None:
    """By name, with its valid keys and its sessions counted."""

    async def story(database: Database) -> None:
        keys, store = KeyStore(database), TenantStore(database)
        for record in (key("zoo"), key("zoo", ends=5.0), key("zoo", revoked=5.0)):
            await keys.add(record)
        await SessionStore(database).begin_turn(session(), turn())
        await store.put("named", 1.0, enabled=False)
        acme = TenantRecord("acme", True, None, "", 0, 1)
        zoo = TenantRecord("zoo", True, None, "", 1, 0)
        assert await store.list(5.0) == [acme, TenantRecord("named", False, 1.0, "", 0, 0), zoo]
        assert await store.list(5.0, "zoo") == [zoo]
        assert await store.list(5.0, "none") == []

    stored(tmp_path, story)


@pytest.mark.parametrize("now", [4.9, 5.0])
def test_what_is_in_force_is_what_a_key_says_of_itself(tmp_path: Path, now: float) -> None:
    """Of the keys that were asked for; one that is not there is not in force."""

    async def story(database: Database) -> None:
        records = [key(), key(ends=5.0), key(revoked=5.0), key(ends=9.0, revoked=5.0), key()]
        for record in records:
            await KeyStore(database).add(record)
        store = TenantStore(database)
        await store.put("blue", 1.0, enabled=False)
        await store.put("green", 1.0, enabled=True)
        asked = [*(record.id for record in records[:-1]), "none"]
        valid = frozenset(record.id for record in records[:-1] if record.valid(now))
        assert await store.in_force(asked, now) == InForce(valid, frozenset({"blue"}))
        assert await store.in_force([], now) == InForce(frozenset(), frozenset({"blue"}))

    stored(tmp_path, story)


def test_what_is_in_force_is_one_query_however_many_keys_there_are(tmp_path: Path) -> None:
    """More than SQLite takes parameters, too."""

    async def story(database: Database) -> None:
        statements: list[str] = []
        await database.read(lambda c: c.connection.set_trace_callback(statements.append), "other")
        await TenantStore(database).in_force([f"key-{n}" for n in range(40_000)], 1.0)
        queries = [s for s in statements if s.lstrip().upper().startswith("SELECT")]
        assert len(queries) == 1

    stored(tmp_path, story)


@pytest.mark.parametrize(("ends", "then"), [(None, 20.0), (15.0, 15.0), (30.0, 20.0)])
def test_a_replaced_key_ends_with_the_overlap_and_no_later(
    tmp_path: Path, ends: float | None, then: float
) -> None:
    """The new one is there from the same moment."""

    async def story(database: Database) -> None:
        keys, old = KeyStore(database), key(ends=ends)
        await keys.add(old)
        new = replace(key(), create_time=10.0)
        assert await keys.replace(old.id, new, 20.0) == replace(old, expire_time=then)
        assert await keys.get(new.id) == new

    stored(tmp_path, story)


def test_a_key_that_is_no_longer_valid_is_not_replaced(tmp_path: Path) -> None:
    """Neither revoked nor expired nor unknown: nothing is stored."""

    async def story(database: Database) -> None:
        keys, records = KeyStore(database), [key(ends=10.0), key(revoked=3.0)]
        for record in records:
            await keys.add(record)
        new = replace(key(), create_time=10.0)
        for id in (*(record.id for record in records), "none"):
            assert await keys.replace(id, new, 20.0) is None
        assert {found.id for found in await keys.list()} == {record.id for record in records}

    stored(tmp_path, story)


def test_a_file_of_keys_does_not_lengthen_what_was_replaced_or_revoked_here(
    tmp_path: Path,
) -> None:
    """It was exported before, and is read again with each start."""

    async def story(database: Database) -> None:
        keys = KeyStore(database)
        told = [key(), key(ends=15.0), key()]
        await keys.take(told)
        new = replace(key(), create_time=10.0)
        for old in told[:2]:
            await keys.replace(old.id, replace(new, id=f"for-{old.id}"), 20.0)
        await keys.revoke("acme", told[2].id, 9.0)
        before = await keys.list()
        await keys.take(told)
        assert await keys.list() == before
        assert [(await keys.get(k.id)).expire_time for k in told] == [20.0, 15.0, None]  # type: ignore[union-attr]  # they are there

    stored(tmp_path, story)
