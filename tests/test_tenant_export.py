"""A tenant's data as files: whole, of one moment, and without a secret."""

import asyncio
import hashlib
import json
import os
import sqlite3
import tarfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import LargeBinary
from support.file_store import REPORT, session, stored, turn
from support.service import key_for, serving
from typer.testing import CliRunner, Result

import samovar
from samovard.agent.home import Homes
from samovard.agent.transcripts import DEPTH
from samovard.cli import app
from samovard.core.events import Usage
from samovard.core.records import SessionKey
from samovard.edge.identity import new_key
from samovard.store.keys import KeyStore
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.backup import opened
from samovard.store.sqlite.database import Database
from samovard.store.tables import metadata
from samovard.tenant_export import SECRETS, export

HOME = "0" * 32
PEPPER = bytes(32)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def store_of(path: Path, *names: str) -> Path:
    """Make a store with these sessions of acme, one of blue, and a key of both."""

    async def story(database: Database) -> None:
        store = SessionStore(database)
        for key in (*(SessionKey("acme", name) for name in names), SessionKey("blue", "theirs")):
            record = replace(session(key), home=HOME, usage=Usage(1, 2, cost_usd=0.5))
            await store.begin_turn(record, turn())
            await store.commit(record, turn("t", "finished", report=REPORT))
        for tenant in ("acme", "blue"):
            await KeyStore(database).add(new_key(tenant, PEPPER, 1.0)[1])

    stored(path, story)
    return path / "x.db"


def exported(path: Path, store: Path, name: str = "out") -> dict[str, Any]:
    with Homes(path / "s") as homes:
        return export("acme", store, homes, path / name)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_file_is_in_the_manifest_with_its_digest(directory: Path) -> None:
    """With versions, rows by table, and the usage and cost of all sessions together; what is
    another tenant's is in none of them."""
    manifest = exported(directory, store_of(directory, "a", "b"))
    out = directory / "out"
    assert json.loads((out / "manifest.json").read_text()) == manifest
    rows = {table: count for table, count in manifest["rows"].items() if count}
    assert rows == {"api_key": 1, "session": 2, "turn": 2, "usage": 1}
    assert manifest["usage"]["output_tokens"] == 4
    assert manifest["usage"]["cost_usd"] == 1.0
    assert {"format", "samovard", "schema", "tenant", "time"} <= manifest.keys()
    files = {str(p.relative_to(out)): p for p in out.rglob("*") if p.is_file()}
    told = {file["path"]: file for file in manifest["files"]}
    assert told.keys() == files.keys() - {"manifest.json"}
    for name, file in told.items():
        assert file["sha256"] == hashlib.sha256(files[name].read_bytes()).hexdigest()
        assert "theirs" not in files[name].read_text()
    assert lines(out / "turn.jsonl")[0]["report"]["usage_by_model"] == {
        "m": {"input_tokens": 1, "output_tokens": 2}
        | dict.fromkeys(("cache_read_input_tokens", "cache_creation_input_tokens"), 0)
        | {"cost_usd": 0.0}
    }


def test_no_column_of_bytes_is_exported_unless_it_is_known_what_it_holds() -> None:
    """One that keys are checked with is left out; a new one has to be decided on."""
    data = {("session", "spec"), ("session", "usage"), ("turn", "digest"), ("turn", "report")}
    found = {
        (table.name, column.name)
        for table in metadata.tables.values()
        if "tenant" in table.c
        for column in table.c
        if isinstance(column.type, LargeBinary)
    }
    assert found == data | {(table, name) for table, names in SECRETS.items() for name in names}


def test_rows_are_of_one_moment(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written between one table and the next is in neither."""
    store = store_of(directory, "a")

    def disturbed(file: object, *arguments: Any, **options: Any) -> Any:
        if str(file).endswith("turn.jsonl"):
            with closing(opened(store)) as writer:
                writer.execute("DELETE FROM session WHERE tenant = 'acme'")
                writer.execute("DELETE FROM turn WHERE tenant = 'acme'")
        return open(file, *arguments, **options)  # type: ignore[call-overload]  # as given

    monkeypatch.setattr("samovard.tenant_export.open", disturbed, raising=False)
    manifest = exported(directory, store)
    assert (manifest["rows"]["session"], manifest["rows"]["turn"]) == (1, 1)


@pytest.mark.parametrize(("name", "mode"), [("out", 0o700), ("out.tar.gz", 0o600)])
def test_an_export_is_its_owners_alone_and_replaces_nothing(
    directory: Path, name: str, mode: int
) -> None:
    """It is there whole or not at all: what fails leaves nothing."""
    store = store_of(directory, "a")
    exported(directory, store, name)
    assert (directory / name).stat().st_mode & 0o777 == mode
    with pytest.raises(FileExistsError):
        exported(directory, store, name)
    before = set(os.listdir(directory))

    def fails(done: int, total: int) -> None:
        raise OSError

    with pytest.raises(OSError), Homes(directory / "s") as homes:
        export("acme", store, homes, directory / f"other-{name}", fails)
    assert set(os.listdir(directory)) == before


def planted(projects: Path, secret: Path) -> set[str]:
    """Plant what must not be read, and return the paths of it."""
    inside = projects / "p"
    deep = projects / "/".join("d" * (DEPTH + 1))
    for made in (inside, deep):
        made.mkdir(parents=True)
    (inside / "link.jsonl").symlink_to(secret)
    (inside / "hard.jsonl").hardlink_to(secret)
    (projects / "linked").symlink_to(secret.parent)
    os.mkfifo(inside / "pipe.jsonl")
    os.truncate(os.open(inside / "huge.jsonl", os.O_CREAT | os.O_WRONLY), (1 << 30) + 1)
    deepest = str(deep.relative_to(projects))
    return {deepest, "linked"} | {f"p/{n}.jsonl" for n in ("link", "hard", "pipe", "huge")}


def test_what_an_agent_may_have_planted_is_left_out(directory: Path) -> None:
    """Links, pipes, files with two names or without an end: each is named, and none is read."""
    store = store_of(directory, "a")
    with Homes(directory / "s") as homes:
        projects = homes.prepare(HOME).config / "projects"
    secret = directory / "secret" / "key"
    secret.parent.mkdir()
    secret.write_text("sk-secret")
    left = planted(projects, secret)
    (projects / "p" / "good.jsonl").write_text("{}\n")
    manifest = exported(directory, store)
    assert set(manifest["left_out"]) == {f"transcripts/a/{path}" for path in left}
    copied = [*(directory / "out" / "transcripts").rglob("*.*")]
    assert [path.name for path in copied] == ["good.jsonl"]


def test_a_row_that_cannot_be_read_costs_its_own_transcripts_only(directory: Path) -> None:
    """Whatever stands where the directory or the session should: no path is made of it."""
    store = store_of(directory, "a", "b", "c")
    with closing(opened(store)) as writer:
        writer.execute("UPDATE session SET home = '../../etc' WHERE session = 'a'")
        writer.execute("UPDATE session SET home = ?, usage = 7 WHERE session = 'b'", ("f" * 32,))
        writer.execute("PRAGMA foreign_keys = OFF")
        writer.execute("UPDATE session SET session = '../../x', spec = x'ff' WHERE session = 'c'")
    with Homes(directory / "s") as homes:
        projects = homes.prepare(HOME).config / "projects"
    (projects / "p").mkdir(parents=True)
    (projects / "p" / "x.jsonl").write_text("{}\n")
    manifest = exported(directory, store)
    assert manifest["rows"]["session"] == 3
    (path,) = (file["path"] for file in manifest["files"] if "/" in file["path"])
    assert path == f"transcripts/{HOME}/p/x.jsonl"
    assert {row["session"] for row in lines(directory / "out" / "session.jsonl")} == {
        "a",
        "b",
        "../../x",
    }


@pytest.fixture
def settings(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SAMOVAR_STATE__DIRECTORY", str(directory))
    return directory


def test_the_command_says_what_it_wrote(settings: Path) -> None:
    """In words, or as the manifest without its list of files."""
    store_of(settings, "a").rename(settings / "samovar.db")
    done = call("tenants", "export", "acme", "--to", str(settings / "out"))
    assert done.exit_code == 0, done.stderr
    said = f"exported 1 sessions, 1 turns, 0 transcripts of acme to {settings}/out\n"
    assert done.stdout == said
    archive = str(settings / "out.tgz")
    told = json.loads(call("tenants", "export", "acme", "--to", archive, "--json").stdout)
    assert (told["file"], told["tenant"], told["rows"]["turn"]) == (archive, "acme", 1)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        (("acme", "--to", "{0}/there"), "there exists: name a new file", 1),
        (("nobody", "--to", "{0}/new"), "the store has no data of nobody", 1),
        (("Bad Name", "--to", "{0}/new"), "Bad Name is not a tenant's name", 2),
    ],
)
def test_what_cannot_be_exported_is_one_line(
    settings: Path, arguments: tuple[str, ...], said: str, code: int
) -> None:
    """And makes no file."""
    store_of(settings, "a").rename(settings / "samovar.db")
    (settings / "there").touch()
    done = call("tenants", "export", *(argument.format(settings) for argument in arguments))
    assert (done.exit_code, done.stderr.count("\n")) == (code, 1)
    assert said in done.stderr
    assert not (settings / "new").exists()


def test_a_store_that_is_not_there_is_one_line(settings: Path) -> None:
    """Nothing is made in its place."""
    done = call("tenants", "export", "acme", "--to", str(settings / "out"))
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "samovar.db cannot be read: unable to open database file" in done.stderr
    assert not (settings / "samovar.db").exists()


def test_a_running_service_is_exported_with_what_agents_wrote(directory: Path) -> None:
    """On the real CLI: the tenant's prompts and answers, and of its key neither text nor MAC."""

    async def story() -> tuple[str, str]:
        async with serving(directory, auth={"methods": ["api_key"]}) as run:
            ours, theirs = [await key_for(directory, name) for name in ("acme", "blue")]
            for key, word in ((ours, "canary"), (theirs, "parrot")):
                async with samovar.AsyncClient(run.address, api_key=key) as client:
                    await client.ask(f"Say {word}")
            store, target = directory / "samovar.db", directory / "acme.tar.gz"
            with Homes(directory / "s") as homes:
                await asyncio.to_thread(export, "acme", store, homes, target)
        return ours, theirs

    ours, _ = asyncio.run(story())
    with tarfile.open(directory / "acme.tar.gz") as packed:
        files = {m.name: packed.extractfile(m) for m in packed.getmembers() if m.isfile()}
        texts = {name: file.read().decode() for name, file in files.items() if file is not None}
    (transcript,) = (t for name, t in texts.items() if name.startswith("acme/transcripts/default/"))
    assert "Say canary" in transcript
    assert json.loads(texts["acme/manifest.json"])["usage"]["output_tokens"] > 0
    with closing(sqlite3.connect(directory / "samovar.db")) as store:
        macs = [row[0].hex() for row in store.execute("SELECT mac FROM api_key")]
    everything = "".join(texts.values())
    assert not any(word in everything for word in (*macs, ours, ours[-43:], "parrot", "sk-test"))
