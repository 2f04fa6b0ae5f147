"""Copies of the store: made while it is written, and put back."""

import asyncio
import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from support.file_store import session, stored, turn
from support.program import environ
from support.service import Running, serving
from support.timeouts import BOUND
from typer.testing import CliRunner, Result

import samovar
from samovard.cli import app
from samovard.commandline import progress
from samovard.core.records import SessionKey, Spec
from samovard.state_lock import state_directory
from samovard.store.ledger import Ledger
from samovard.store.migrations import STEPS
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.backup import NotAStore, back_up, restore
from samovard.store.sqlite.database import Database


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def made(path: Path, count: int = 1, text: str = "") -> Path:
    """Make a store of so many sessions and return its file."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        for number in range(count):
            record = session(SessionKey("acme", f"s{number}"))
            await store.begin_turn(
                replace(record, spec=Spec("default", append_system_prompt=text)), turn()
            )

    path.mkdir(exist_ok=True)
    stored(path, story)
    return path / "x.db"


def sessions(file: Path) -> int:
    with contextlib.closing(sqlite3.connect(file)) as store:
        count = store.execute("SELECT count(*) FROM session").fetchone()[0]
    return int(count)


def test_a_copy_is_of_one_moment_and_nothing_waits_for_it(tmp_path: Path) -> None:
    """While it is stopped in its middle, turns are recorded and committed, pages are read, and
    the log is carried over; the copy has nothing of what came then."""
    made(tmp_path, 100, "x" * 10_000)
    reached, go_on = threading.Event(), threading.Event()

    def halted(done: int, total: int) -> None:
        if 0 < done < total:
            reached.set()
            assert go_on.wait(BOUND)

    async def story(database: Database) -> None:
        store = SessionStore(database)
        copying = asyncio.to_thread(back_up, tmp_path / "x.db", tmp_path / "copy", halted)
        task = asyncio.create_task(copying)
        try:
            assert await asyncio.to_thread(reached.wait, BOUND)
            for number in range(300):
                await store.begin_turn(session(), turn(f"t{number}"))
                await store.commit(session(), turn(f"t{number}", "finished"))
            assert len(await store.list("acme", None, 1000)) == 101
        finally:
            go_on.set()
        copy = await task
        assert copy.rows["session"] == copy.rows["turn"] == 100
        assert copy.schema == len(STEPS)

    stored(tmp_path, story)
    assert sessions(tmp_path / "copy") == 100


def test_a_copy_is_its_owners_alone_and_replaces_nothing(tmp_path: Path) -> None:
    """It is one file; where there is something of its name, that stays and nothing is left."""
    store = made(tmp_path)
    place = tmp_path / "there"
    place.mkdir()
    back_up(store, place / "copy")
    assert (place / "copy").stat().st_mode & 0o777 == 0o600
    before = (place / "copy").read_bytes()
    with pytest.raises(FileExistsError):
        back_up(store, place / "copy")
    (place / "link").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        back_up(store, place / "link")
    assert (place / "copy").read_bytes() == before
    assert sorted(os.listdir(place)) == ["copy", "link"]


def changed(file: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as store:
        store.execute(statement)


def overwritten(file: Path) -> None:
    with open(file, "r+b") as whole:
        whole.seek(4096)
        whole.write(b"\xff" * 40960)


UNUSABLE = {
    "damaged": (overwritten, "copy is damaged: |copy cannot be read: "),
    "cut": (lambda file: os.truncate(file, 5000), "copy is damaged: |copy cannot be read: "),
    "no database": (lambda file: file.write_text("hello " * 1000), "file is not a database"),
    "empty": (lambda file: os.truncate(file, 0), "copy is not a store of samovard"),
    "another's": (lambda file: changed(file, "DROP TABLE schema_version"), "is not a store of"),
    "not there": (lambda file: file.unlink(), "unable to open database file"),
    "newer": (
        lambda file: changed(file, "INSERT INTO schema_version VALUES (99)"),
        "copy has schema 99, this version knows .*: use a later samovard",
    ),
}


@pytest.mark.parametrize("fault", UNUSABLE)
def test_what_is_no_whole_store_of_a_known_version_is_refused(tmp_path: Path, fault: str) -> None:
    """In a sentence, and the store stays what it was."""
    spoil, said = UNUSABLE[fault]
    store = made(tmp_path / "store", 2)
    copy = tmp_path / "copy"
    shutil.copy(made(tmp_path / "other"), copy)
    spoil(copy)
    with pytest.raises(NotAStore, match=said):
        restore(copy, store, tmp_path / "aside")
    assert sessions(store) == 2
    assert os.listdir(tmp_path / "store") == ["x.db"]
    assert not (tmp_path / "aside").exists()


def test_the_ledger_stays_the_machines(tmp_path: Path) -> None:
    """A service that starts on a restored store finds what a killed one has left behind."""

    async def started(database: Database) -> None:
        ledger = Ledger(database, "server-a", "boot")
        await ledger.begin(1.0)
        await ledger.add("p", 4711, 5)

    async def found(database: Database) -> None:
        earlier = await Ledger(database, "server-b", "boot").earlier()
        assert earlier.server_ids == ("server-a",)
        assert [entry.pid for entry in earlier.entries] == [4711]

    store = made(tmp_path)
    back_up(store, tmp_path / "copy")
    stored(tmp_path, started)
    restore(tmp_path / "copy", store, tmp_path / "aside")
    stored(tmp_path, found)


def test_the_log_of_a_damaged_store_is_set_aside_with_it(tmp_path: Path) -> None:
    """SQLite would take it for the log of the store that comes into its place."""
    store = made(tmp_path / "store", 3)
    copy = made(tmp_path / "copy", 2)
    log = store.with_name("x.db-wal")
    with contextlib.closing(sqlite3.connect(store)) as connection:
        connection.execute("DELETE FROM session")
        connection.commit()
        shutil.copy(log, tmp_path / "log")
    shutil.copy(tmp_path / "log", log)
    with open(store, "r+b") as file:
        file.write(bytes(4096))
    damaged = store.read_bytes()
    aside = tmp_path / "store" / "aside"
    restore(copy, store, aside)
    assert sessions(store) == 2
    assert aside.read_bytes() == damaged
    assert aside.with_name("aside-wal").read_bytes() == (tmp_path / "log").read_bytes()
    assert sorted(os.listdir(tmp_path / "store")) == ["aside", "aside-wal", "x.db"]


TESTS = str(Path(__file__).parents[2])

#: Restores again and again, each time killed a step later than the last, until that is over.
KILLED = """
import shutil, sys
from pathlib import Path
from support.crash_points import at_each_step
from samovard.store.sqlite.backup import restore

copy, store, place = map(Path, sys.argv[1:])
steps = ("os.rename", "os.link", "os.remove", "sqlite3.connect", "tempfile.mkstemp")
at_each_step(
    place,
    steps,
    lambda there: there.mkdir() or shutil.copy(store, there),
    lambda there: restore(copy, there / store.name, there / "aside"),
)
"""


def test_a_crash_leaves_the_old_store_until_the_new_one_is_whole(tmp_path: Path) -> None:
    """Killed at each of its steps, one after another, until none is left."""
    copy, store = made(tmp_path / "copy", 2), made(tmp_path / "store", 3)
    (tmp_path / "there").mkdir()
    command = [sys.executable, "-c", KILLED, str(copy), str(store), str(tmp_path / "there")]
    subprocess.run(command, env=environ(PYTHONPATH=TESTS), timeout=BOUND, check=True)
    killed = len(os.listdir(tmp_path / "there")) - 1
    seen = [sessions(tmp_path / "there" / f"{step}" / "x.db") for step in range(killed + 1)]
    assert killed > 6
    assert seen == [3] * killed + [2] or seen == [3] * (killed - 1) + [2, 2]


@pytest.fixture
def settings(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMOVAR_STATE__DIRECTORY", str(directory))
    return directory


def test_a_restored_store_resumes_its_sessions(settings: Path) -> None:
    """On the real CLI, on a new disk, from copies of the store and the directories that were made
    while turns ran. A transcript that is gone since is told, and where the store before it is."""
    copy, homes = settings / "copy.db", settings / "s"
    archive = ["--exclude=./gone", "--exclude=./*/tmp", "-C", str(homes), "."]

    def pack() -> None:
        back_up(settings / "samovar.db", copy)
        packed = subprocess.run(["tar", "-czf", str(settings / "homes.tar.gz"), *archive])
        assert packed.returncode in (0, 1)  # 1: a file changed while it was read

    async def crowd(run: Running) -> None:
        for number in range(3):
            await run.client.ask(f"Say {number}", session="other")

    async def first() -> None:
        async with serving(settings) as run:
            await run.client.ask("Say canary")
            await run.client.ask("Say hello", session="other")
            turns = asyncio.create_task(crowd(run))
            await asyncio.to_thread(pack)
            await turns
            await run.client.close_session("other")

    async def second() -> None:
        async with serving(settings) as run:
            answer = await run.client.ask("Say again")
            assert answer.started.start_mode is samovar.StartMode.RESUMED
            assert "Say canary" in str(run.asked()[-1])
            with pytest.raises(samovar.TranscriptLost):
                await run.client.ask("Say again", session="other")

    asyncio.run(first())
    shutil.rmtree(homes)
    homes.mkdir()
    unpack = ["tar", "-xpzf", str(settings / "homes.tar.gz"), "-C", str(homes)]
    subprocess.run(unpack, check=True)
    (lost,) = (p for p in homes.glob("*/config/projects/*/*.jsonl") if "Say hello" in p.read_text())
    lost.unlink()
    done = call("store", "restore", str(copy))
    assert done.exit_code == 0, done.stderr
    assert done.stdout.startswith("restored 2 sessions, ")
    assert "1 of 2 sessions have no transcript" in done.stdout
    (before,) = settings.glob("samovar.db.before-*")
    assert f"the store before it is {before}:" in done.stdout
    assert sessions(before) == 1
    asyncio.run(second())


def test_both_commands_tell_scripts_what_is_in_a_copy(settings: Path) -> None:
    """Rows by table, the version of the schema, and where the sessions' directories are."""
    made(settings / "x").rename(settings / "samovar.db")
    copy = settings / "copy"
    told = json.loads(call("store", "backup", str(copy), "--json").stdout)
    assert (told["file"], told["bytes"]) == (str(copy), copy.stat().st_size)
    assert (told["rows"]["session"], told["rows"]["turn"]) == (1, 1)
    assert (told["schema"], told["homes"]) == (len(STEPS), str(settings / "s"))
    told = json.loads(call("store", "restore", str(copy), "--json").stdout)
    assert told["rows"]["session"] == 1
    assert sessions(Path(told["before"])) == 1


def test_nothing_is_put_back_while_a_service_uses_the_store(settings: Path) -> None:
    """The sentence says what to do; the store stays."""
    store = made(settings / "x", 2).rename(settings / "samovar.db")
    back_up(made(settings / "y"), settings / "copy")
    with state_directory(settings):
        done = call("store", "restore", str(settings / "copy"))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert f"another samovard uses {settings}: stop it" in done.stderr
    assert sessions(store) == 2


@pytest.mark.parametrize("terminal", ["", "1"])
def test_how_far_a_copy_is_stands_on_a_terminal_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], terminal: str
) -> None:
    """On stderr, so that what is printed stays for scripts."""
    monkeypatch.setenv("FORCE_COLOR", terminal)  # makes a terminal of it
    monkeypatch.setenv("TERM", "xterm")
    with progress("copying") as shown:
        shown(1, 2)
    out, err = capsys.readouterr()
    assert out == ""
    assert ("copying" in err) is bool(terminal)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("backup", "copy exists: name a new file"),
        ("restore", "copy is not a store of samovard"),
    ],
)
def test_what_cannot_be_done_is_one_line(settings: Path, command: str, said: str) -> None:
    """With exit code 1, and nothing is changed."""
    stored_at = made(settings / "x").rename(settings / "samovar.db")
    (settings / "copy").touch()
    done = call("store", command, str(settings / "copy"))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr
    assert sessions(stored_at) == 1
    assert (settings / "copy").stat().st_size == 0
