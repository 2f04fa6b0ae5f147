"""Deleting a tenant: everything of it goes, nothing of others, and what is cut off is finished."""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from support.file_store import session, turn
from support.program import environ
from support.pseudo_terminal import terminal
from support.service import Running, key_for, serving, until
from support.timeouts import BOUND
from typer.testing import CliRunner, Result

import samovar
from samovard.agent.home import Homes
from samovard.cli import app
from samovard.core.records import SessionKey
from samovard.edge.identity import CACHE_TIME, new_key
from samovard.settings import Settings
from samovard.standin import delay, script, text
from samovard.state_lock import state_directory
from samovard.store.deletions import DeletionStore
from samovard.store.keys import KeyStore
from samovard.store.sessions import SessionStore
from samovard.store.sqlite import schema
from samovard.store.sqlite.backup import opened
from samovard.store.sqlite.database import Database
from samovard.tenant_deletion import HOLD, Deletion, NotEnded

#: A model that says nothing until the turn is interrupted.
SILENT = script([delay(300.0), text("too late")])
#: Tables that hold nothing of tenants.
OTHERS = {"schema_version", "server", "process"}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def settings_of(directory: Path) -> Settings:
    return Settings.model_validate({"state": {"directory": directory}})


def kept(directory: Path, *tenants: str) -> Path:
    """Make a store with a session, a key and a directory with three files of each tenant."""

    async def story() -> None:
        async with Database(settings_of(directory).url) as database:
            for number, tenant in enumerate(tenants):
                record = replace(session(SessionKey(tenant, "s")), home=f"{number}" * 32)
                await SessionStore(database).begin_turn(record, turn())
                await KeyStore(database).add(new_key(tenant, bytes(32), 1.0)[1])

    asyncio.run(story())
    with Homes(directory / "s") as homes:
        for number in range(len(tenants)):
            home = homes.prepare(f"{number}" * 32)
            for place in (home.config, home.work, home.tmp):
                (place / "file").write_bytes(bytes(100))
    return directory / "samovar.db"


def deletion(directory: Path, homes: Homes, hold: float = 0.0, within: float = BOUND) -> Deletion:
    settings = settings_of(directory)
    return Deletion("acme", settings, directory / "samovar.db", homes, hold, within)


def delete(directory: Path) -> Deletion:
    """Delete the tenant, and check the proof."""
    with Homes(directory / "s") as homes:
        work = deletion(directory, homes)
        asyncio.run(work.run())
        assert not any(work.left().values())
    return work


def found(store: Path, word: str) -> list[str]:
    """Return every column of every table in which a word stands."""
    with closing(sqlite3.connect(store)) as connection:
        return [
            f"{table}.{column}"
            for table, columns in schema.tables(connection).items()
            for column in columns
            for (cell,) in connection.execute(f'SELECT "{column}" FROM "{table}"')
            if word in (cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell))
        ]


def filled(connection: sqlite3.Connection, table: str, tenant: str) -> None:
    """Put a row of a tenant into a table, whatever its columns are."""
    cells: dict[str, str | int] = {}
    for _, name, kind, *_ in connection.execute(f"PRAGMA table_info({table})"):
        cells[name] = tenant if name == "tenant" else f"{tenant}-x"
        if kind in ("FLOAT", "INTEGER", "BOOLEAN"):
            cells[name] = 1
    marks = ", ".join("?" * len(cells))
    connection.execute(f"INSERT INTO {table} VALUES ({marks})", [*cells.values()])


def test_no_table_is_forgotten(directory: Path) -> None:
    """A row in every table with tenants, one that a later version may add among them: nothing of
    the tenant is left in any column of any table, and the other's rows are all there."""
    store = kept(directory)
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("CREATE TABLE later (note VARCHAR, tenant VARCHAR)")
        tables = schema.of_tenants(connection).keys()
        assert schema.tables(connection).keys() - tables == OTHERS
        for table in tables:
            for tenant in ("acme", "blue"):
                filled(connection, table, tenant)
        connection.commit()
    before = found(store, "blue")
    assert len(found(store, "acme")) == len(before) > 10
    work = delete(directory)
    assert found(store, "acme") == []
    assert work.rows == dict.fromkeys(tables - {"deletion"}, 1)
    assert found(store, "blue") == before


def test_what_is_deleted_is_counted(directory: Path) -> None:
    """Rows by table, directories, files and their bytes; another tenant's stay."""
    store = kept(directory, "acme", "blue")
    work = delete(directory)
    assert {t: n for t, n in work.rows.items() if n} == {"session": 1, "turn": 1, "api_key": 1}
    assert (work.directories, work.files, work.bytes) == (1, 3, 300)
    assert {path.name for path in (directory / "s").iterdir()} == {"1" * 32, "gone"}
    assert os.listdir(directory / "s" / "gone") == []
    with closing(opened(store)) as connection:
        assert schema.counts(connection)["session"] == 1
    again = delete(directory)
    assert not any(again.rows.values())


def test_a_bad_row_is_deleted_as_well(directory: Path) -> None:
    """No path is made of what stands in it."""
    store = kept(directory, "acme")
    (directory / "outside").mkdir()
    with closing(opened(store)) as connection:
        connection.execute("UPDATE session SET home = '../outside'")
    delete(directory)
    assert (directory / "outside").is_dir()
    assert found(store, "acme") == []


TESTS = str(Path(__file__).parent)

#: Deletes again and again, each time killed a step later than the last, until that is over.
KILLED = """
import asyncio, shutil, sys
from pathlib import Path
from support.crash_points import at_each_step
from samovard.agent.home import Homes
from samovard.settings import Settings
from samovard.tenant_deletion import Deletion

def work(there):
    settings = Settings.model_validate({"state": {"directory": there}})
    with Homes(there / "s") as homes:
        asyncio.run(Deletion("acme", settings, there / "samovar.db", homes).run())

place, state = map(Path, sys.argv[1:])
steps = ("os.rename", "os.rmdir", "sqlite3.connect/handle")
at_each_step(place, steps, lambda there: shutil.copytree(state, there), work)
"""


def test_a_deletion_that_was_cut_off_is_finished_by_the_next(directory: Path) -> None:
    """Killed at each of its steps: the tenant is marked, so that no service takes its calls,
    or it is gone; another run removes the rest."""
    state = directory / "state"
    state.mkdir()
    kept(state, "acme", "blue")
    runs = directory / "runs"
    runs.mkdir()
    command = [sys.executable, "-c", KILLED, str(runs), str(state)]
    subprocess.run(command, env=environ(PYTHONPATH=TESTS), timeout=2 * BOUND, check=True)
    *killed, last = sorted(runs.iterdir(), key=lambda path: int(path.name))
    assert len(killed) > 10
    assert found(last / "samovar.db", "acme") == []
    for place in killed:
        store = place / "samovar.db"
        begun = {*found(store, "acme")}
        assert not begun or "api_key.tenant" in begun or "deletion.tenant" in begun

    for place in killed[:: max(len(killed) // 3, 1)]:
        delete(place)
        assert found(place / "samovar.db", "acme") == []
        assert {path.name for path in (place / "s").iterdir()} == {"1" * 32, "gone"}


def test_a_service_that_does_not_end_the_tenant_is_told_of(directory: Path) -> None:
    """In a sentence; nothing but its keys is removed yet."""
    store = kept(directory, "acme")
    with state_directory(directory), Homes(directory / "s") as homes:
        with pytest.raises(NotEnded, match="the service has not ended acme in 0 s"):
            asyncio.run(deletion(directory, homes, within=0.0).run())
    assert "session.tenant" in found(store, "acme")
    assert (directory / "s" / ("0" * 32)).is_dir()


def test_a_mark_outlives_what_a_service_remembers_of_keys() -> None:
    """A key that is gone is no way back in behind the deletion."""
    assert HOLD > CACHE_TIME


def test_a_running_service_ends_the_tenant_first(directory: Path) -> None:
    """On the real CLI: its turn is stopped, its calls are refused while it is marked, its processes
    and its key are gone behind it; another tenant's turn goes on, and so does its process."""

    async def story() -> None:
        async with serving(directory, auth={"methods": ["api_key"]}) as run:
            keys = [await key_for(directory, tenant) for tenant in ("acme", "blue")]
            clients = [samovar.AsyncClient(run.address, api_key=k, deadline=BOUND) for k in keys]
            async with clients[0] as acme, clients[1] as blue:
                await acme.ask("Say canary")
                first = await blue.ask("Say canary")
                silent = asyncio.create_task(blue.ask(script([delay(5.0), text("on")])))
                with pytest.raises((samovar.TenantDisabled, samovar.CredentialInvalid)):
                    async with acme.send(SILENT) as turn:
                        await anext(turn)
                        await ended(run)
                        [event async for event in turn]
                with pytest.raises((samovar.TenantDisabled, samovar.CredentialInvalid)):
                    await acme.ask("Say more")
                assert {process.key.tenant for process in run.service.pool} == {"blue"}
                with Homes(directory / "s") as homes:
                    work = deletion(directory, homes)
                    await work.run()
                    assert not any(work.left().values())
                assert (work.directories, work.rows["turn"], work.rows["session"]) == (1, 2, 1)
                assert (await silent).text == "on"
                again = await blue.ask("Say more")
                assert again.started.pid == first.started.pid
                await until(lambda: not tallied(run))
                with pytest.raises(samovar.CredentialInvalid):
                    await samovar.AsyncClient(run.address, api_key=keys[0]).ask("Say more")

    asyncio.run(story())
    assert found(directory / "samovar.db", "acme") == []
    assert len([*(directory / "s").iterdir()]) == 2  # that of blue, and what is being erased


def tallied(run: Running) -> bool:
    return any(key.tenant == "acme" for key in run.service.pool.counters.all)


async def ended(run: Running) -> None:
    """Mark the tenant, and wait until the service has ended it."""
    store = DeletionStore(run.service.maintenance.database)
    await store.begin("acme", 1.0)
    async with asyncio.timeout(BOUND):
        while not (await store.marks())["acme"]:
            pass


def test_a_service_that_starts_refuses_a_tenant_that_is_being_deleted(directory: Path) -> None:
    """From its first call on, whatever an earlier one has recorded of it."""

    async def story() -> None:
        async with Database(settings_of(directory).url) as database:
            await DeletionStore(database).begin("local", 1.0)
            await DeletionStore(database).ended("local", 1.0)
        async with serving(directory, fake=True) as run:
            with pytest.raises(samovar.TenantDisabled):
                await run.client.ask("Say on")
            store = DeletionStore(run.service.maintenance.database)
            await store.restarted()
            async with asyncio.timeout(BOUND):
                while not (await store.marks())["local"]:
                    pass

    asyncio.run(story())


def test_the_command_ends_with_a_proof(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was removed and what is left, in words or as JSON; files of its name are told."""
    monkeypatch.setenv("SAMOVAR_STATE__DIRECTORY", str(directory))
    kept(directory, "acme", "blue")
    mounted = directory / "mounted"
    mounted.mkdir(mode=0o700)
    (mounted / "acme").touch()
    monkeypatch.setenv("SAMOVAR_CREDENTIALS__PROVIDER", "mount")
    monkeypatch.setenv("SAMOVAR_CREDENTIALS__PATH", str(mounted))
    refused = call("tenants", "delete", "acme")
    assert refused.exit_code == 2
    assert refused.stderr == "samovard: there is no terminal to confirm on: pass --yes\n"
    done = call("tenants", "delete", "acme", "--yes")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        "deleted acme: 1 api_key, 1 session, 0 tenant, 1 turn, 0 usage",
        "directories: 1, files: 3, bytes: 300",
        "left: 0 api_key, 0 deletion, 0 directories, 0 session, 0 tenant, 0 turn, 0 usage",
        f"{mounted}/acme is named after the tenant: remove it yourself",
    ]
    told = json.loads(call("tenants", "delete", "blue", "--yes", "--json").stdout)
    assert (told["tenant"], told["named"]) == ("blue", [])
    assert told["removed"]["rows"]["session"] == told["removed"]["directories"] == 1
    assert not any(told["left"].values())


def test_files_of_the_service_are_no_tenants(directory: Path) -> None:
    """Not those of its state directory, though a tenant may have a name like theirs."""
    for name in ("samovar.db", "audit.jsonl"):
        (directory / name).touch()
    tenants = "samovar", "audit"
    with Homes(directory / "s") as homes:
        made = (Deletion(t, settings_of(directory), directory / "x.db", homes) for t in tenants)
        assert [deletion.named() for deletion in made] == [[], []]


def test_on_a_terminal_it_asks(directory: Path) -> None:
    """Anything but yes leaves all as it is."""
    store = kept(directory, "acme")
    main = "from samovard.cli import main; main()"
    state = {"SAMOVAR_STATE__DIRECTORY": str(directory)}
    with terminal(directory, "tenants", "delete", "acme", code=main, **state) as shown:
        shown.until("for good?")
        shown.press("n\r")
        assert shown.exit_code() == 1
    assert found(store, "acme")
