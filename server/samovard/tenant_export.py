"""A tenant's data as files: its rows in the store, and its agents' transcripts.

Rows are read in one transaction, while the service runs; transcripts as they are then. Knows the
store's tables and sessions' directories. Everything here blocks.
"""

import hashlib
import json
import os
import re
import sqlite3
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from samovard import __version__
from samovard.agent.gone import held
from samovard.agent.home import Homes
from samovard.agent.transcripts import walk
from samovard.settings import NAME
from samovard.store.new_file import new_file
from samovard.store.sqlite import schema
from samovard.store.sqlite.backup import opened, readable

FORMAT = 1
TRANSCRIPTS = "transcripts"
ARCHIVES = (".tar.gz", ".tgz")
#: Columns that are not data of the tenant: its credentials are checked with them.
SECRETS = {"api_key": {"mac"}}

#: Called with the number of sessions that are done and the total.
Progress = Callable[[int, int], None]


class Nothing(Exception):
    """Raised if the store has no data of the tenant."""


@dataclass(eq=False)
class Export:
    """An export that is being written to a directory of its own."""

    tenant: str
    place: Path
    rows: dict[str, int] = field(default_factory=dict)
    usage: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    homes: dict[str, str] = field(default_factory=dict)  # by session
    version: int = 0

    def tables(self, store: Path) -> None:
        """Write a file of JSON lines for each table that has rows of the tenant."""
        with readable(store), closing(opened(store)) as connection:
            connection.text_factory = lambda data: data.decode("utf-8", "surrogateescape")
            connection.execute("BEGIN")
            query = "SELECT max(version) FROM schema_version"
            self.version = connection.execute(query).fetchone()[0]
            for table, columns in schema.of_tenants(connection).items():
                self._table(connection, table, columns)
        if not any(self.rows.values()):
            raise Nothing(self.tenant)

    def _table(self, connection: sqlite3.Connection, table: str, columns: list[str]) -> None:
        query = f"SELECT * FROM {schema.quoted(table)} WHERE tenant = ?"  # noqa: S608  # quoted
        self.rows[table] = 0
        with open(self.place / f"{table}.jsonl", "w", encoding="ascii") as file:
            for cells in connection.execute(query, (self.tenant,)):
                row = {n: _cell(c) for n, c in zip(columns, cells, strict=True)}
                for secret in SECRETS.get(table, ()):
                    del row[secret]
                file.write(json.dumps(row) + "\n")
                self.rows[table] += 1
                if table == "session":
                    self._session(row)

    def _session(self, row: dict[str, Any]) -> None:
        self.homes[str(row["session"])] = str(row["home"])
        if isinstance(row["usage"], dict):
            numbers = {n: v for n, v in row["usage"].items() if isinstance(v, int | float)}
            self.usage.update(numbers)

    def transcripts(self, homes: Homes, progress: Progress) -> None:
        """Copy the transcripts of each session, up to their length when they were opened."""
        for done, (session, home) in enumerate(self.homes.items(), 1):
            name = session if re.fullmatch(NAME, session) else home
            projects = homes.open_projects(home) if re.fullmatch("[0-9a-f]{32}", home) else None
            if projects is not None:
                with held(projects):
                    self._copy(projects, Path(TRANSCRIPTS) / name)
            progress(done, len(self.homes))

    def _copy(self, projects: int, place: Path) -> None:
        for path, descriptor in walk(projects):
            if descriptor is None:
                self.left_out.append(str(place / path))
                continue
            target = self.place / place / path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(descriptor, "rb", closefd=False) as source, open(target, "wb") as copy:
                _copied(source, copy, os.fstat(descriptor).st_size)

    def manifest(self) -> dict[str, Any]:
        """Write the manifest, and return it."""
        files = [path for path in sorted(self.place.rglob("*")) if path.is_file()]
        told = {
            "format": FORMAT,
            "samovard": __version__,
            "schema": self.version,
            "tenant": self.tenant,
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "rows": self.rows,
            "usage": dict(self.usage),
            "files": [_described(path, self.place) for path in files],
            "left_out": self.left_out,
        }
        (self.place / "manifest.json").write_text(json.dumps(told, indent=1) + "\n", "ascii")
        return told


def export(
    tenant: str,
    store: Path,
    homes: Homes,
    target: Path,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Write a tenant's data to a new archive or directory, and return its manifest.

    It is written whole or not at all. Raise `FileExistsError` if the name is taken, `Nothing` if
    there is no such tenant, `NotAStore` if the store cannot be read.
    """
    if os.path.lexists(target):
        raise FileExistsError(target)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as made:
        place = Path(made) / tenant
        place.mkdir(mode=0o700)
        work = Export(tenant, place)
        work.tables(store)
        work.transcripts(homes, progress)
        manifest = work.manifest()
        if target.name.endswith(ARCHIVES):
            with new_file(target) as archive:
                _pack(place, archive)
        else:
            target.mkdir(mode=0o700)  # fails if the name is taken by now
            place.rename(target)
    return manifest


def _pack(place: Path, archive: Path) -> None:
    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mode = 0o700 if info.isdir() else 0o600
        return info

    with tarfile.open(archive, "w:gz") as packed:
        packed.add(place, place.name, filter=plain)


def _copied(source: Any, copy: Any, size: int) -> None:
    while size > 0 and (piece := source.read(min(size, 1 << 20))):
        copy.write(piece)
        size -= len(piece)


def _cell(value: object) -> object:
    """Return a value as JSON has it: bytes as the JSON that they contain, or in hex."""
    if not isinstance(value, bytes):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value.hex()


def _described(path: Path, place: Path) -> dict[str, object]:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = str(path.relative_to(place))
    return {"path": name, "bytes": path.stat().st_size, "sha256": digest}
