"""Copies of the store: made while it is in use, checked, and restored.

A copy is read in one transaction, so that it shows a single moment. Readers and writers go on
meanwhile; only the store's log cannot restart before the copy is done. Knows SQLite's files, the
version of the schema and the ledger. Every function blocks.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from samovard.store.migrations import STEPS
from samovard.store.new_file import beside, new_file, sync
from samovard.store.sqlite import schema

PAGES = 64  # copied at a time
PAUSE = 0.002  # seconds between them, so that turns can use the disk

#: Called with the number of copied pages and the total.
Progress = Callable[[int, int], None]

_LEDGER = (
    "DELETE FROM new.server",
    "INSERT INTO new.server (server_id, start_time) SELECT server_id, start_time FROM main.server",
    "DELETE FROM new.process",
    "INSERT INTO new.process (process_id, server_id, pid, boot_id, ticks) "
    "SELECT process_id, server_id, pid, boot_id, ticks FROM main.process",
)


class NotAStore(Exception):
    """Raised if a file is not a whole store of a known version; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Copy:
    """The content of a copy: `rows` of each table, and the version of its schema."""

    rows: dict[str, int]
    schema: int


def back_up(store: Path, target: Path, progress: Progress = lambda done, total: None) -> Copy:
    """Copy a store into a new file, whole and checked or not at all.

    Raise `FileExistsError` if there is such a file, `NotAStore` if the store is damaged.
    """
    with new_file(target) as made:
        return _copy(store, "rw", made, progress)


def restore(
    file: Path, store: Path, aside: Path, progress: Progress = lambda done, total: None
) -> Copy:
    """Put a copy in the place of a store; an existing store is renamed to `aside`.

    Must be called while no service has the store open. Until the last step, a rename, the store
    stays unchanged. Raise `NotAStore` if the copy cannot be used.
    """
    with beside(store) as made:
        copy = _copy(file, "ro", made, progress)
        if store.exists():
            _set_aside(store, aside)
            _keep_ledger(store, made)
            _without_log(store, aside)
        sync(made)
        os.replace(made, store)
        sync(store.parent)
    return copy


def resumable(store: Path) -> list[tuple[str, str]]:
    """Return the directory and the agent's own id of each session that has a transcript."""
    with closing(opened(store)) as connection:
        query = "SELECT home, agent_session FROM session WHERE finished"
        return [(str(home), str(agent)) for home, agent in connection.execute(query)]


def opened(store: Path, mode: str = "rw") -> sqlite3.Connection:
    """Open an existing store; the caller controls its transactions."""
    uri = f"{store.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None)


@contextmanager
def readable(store: Path) -> Iterator[None]:
    """Raise `NotAStore` for an error that SQLite reports of a file."""
    try:
        yield
    except sqlite3.Error as error:
        raise NotAStore(f"{store} cannot be read: {error}") from error


def _copy(source: Path, mode: str, target: Path, progress: Progress) -> Copy:
    def step(status: int, left: int, total: int) -> None:
        progress(total - left, total)
        time.sleep(PAUSE)

    with (
        readable(source),
        closing(opened(source, mode)) as here,
        closing(opened(target)) as there,
    ):
        # Begun before the first page: otherwise a concurrent write would restart the copy.
        here.execute("BEGIN")
        here.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        here.backup(there, pages=PAGES, progress=step)
        copy = _checked(there, source)
        # One file, which can be read where nothing can be written.
        there.execute("PRAGMA journal_mode = DELETE")
        return copy


def _checked(store: sqlite3.Connection, source: Path) -> Copy:
    """Return the content of a store. Raise `NotAStore` and SQLite's own errors."""
    found = store.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise NotAStore(f"{source} is damaged: {found}")
    if "schema_version" not in schema.tables(store):
        raise NotAStore(f"{source} is not a store of samovard")
    version = store.execute("SELECT max(version) FROM schema_version").fetchone()[0] or 0
    if version > len(STEPS):
        known = f"this version knows {len(STEPS)}: use a later samovard"
        raise NotAStore(f"{source} has schema {version}, {known}")
    return Copy(schema.counts(store), version)


def _keep_ledger(old: Path, new: Path) -> None:
    """Keep the ledger, which belongs to the machine: it finds what a killed service left behind."""
    with suppress(sqlite3.Error), closing(opened(old)) as here:
        here.execute("ATTACH ? AS new", (str(new.absolute()),))
        here.execute("BEGIN")
        for statement in _LEDGER:
            here.execute(statement)
        here.execute("COMMIT")


def _set_aside(store: Path, aside: Path) -> None:
    # Before anything opens it: SQLite discards the log of a truncated file.
    for suffix in ("", "-wal"):
        if _beside(store, suffix).exists():
            os.link(_beside(store, suffix), _beside(aside, suffix))


def _without_log(store: Path, aside: Path) -> None:
    """Checkpoint the log; move one that cannot be checkpointed aside with the file.

    SQLite would take it for the log of the file that replaces the store.
    """
    with suppress(sqlite3.Error), closing(opened(store)) as old:
        old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    if (log := _beside(aside, "-wal")).exists() and not log.stat().st_size:
        log.unlink()
    for suffix in ("-wal", "-shm"):
        _beside(store, suffix).unlink(missing_ok=True)


def _beside(store: Path, suffix: str) -> Path:
    return store.with_name(store.name + suffix)
