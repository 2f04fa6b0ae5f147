"""The store's database: one thread that writes and one that reads, a transaction for each call.

Knows SQLAlchemy and SQLite's peculiarities. Knows nothing of what is stored.
"""

import asyncio
import contextlib
import errno
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, Select, create_engine, event, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.dml import UpdateBase

from samovard.core.errors import NoProcess
from samovard.store.migrations import migrate
from samovard.store.sqlite.checkpoints import CARRY_OVER, Checkpoints
from samovard.store.sqlite.prepared import Cursor, Prepared, Query
from samovard.store.sqlite.reserve import Reserve
from samovard.store.sqlite.watch import Watch
from samovard.store.thread import OneThread

T = TypeVar("T")

BEGIN = "BEGIN IMMEDIATE"

#: Called with each call: its operation, the seconds until it was answered, and `ok`, `failed` or
#: `cancelled`.
Heard = Callable[[str, float, str], None]

#: Called with each incident, its name and its fields.
Told = Callable[..., None]

#: How a full disk shows: SQLite may fail to make, extend or sync a file.
MAYBE_FULL = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}

#: Changes a page but no row, to find out whether anything can be written.
TOUCH = "UPDATE server SET start_time = start_time"


class Database:
    """A database, opened and migrated by entering it.

    Entering raises `NoProcess` (store-down) if it cannot be opened, `SchemaTooNew` if a later
    version wrote it. Writes are made one after another, in the order of the calls, and so are
    reads; a read waits for no write, and sees the writes that were answered before it. `writes` is
    the thread that writes, if it has other work too; it must be running.
    """

    def __init__(
        self,
        url: str,
        heard: Heard = lambda operation, seconds, result: None,
        told: Told = lambda incident, **fields: None,
        writes: OneThread | None = None,
    ) -> None:
        self._url = make_url(url)
        name = self._url.database
        self._path = Path(name) if name not in (None, "", ":memory:") else None
        self._heard = heard
        self._told = told
        self._bad_rows: set[tuple[object, ...]] = set()
        self._incidents: deque[tuple[str, dict[str, object]]] = deque()
        self._writes = writes or OneThread("store")
        self._reads = OneThread("store reads") if self._path is not None else self._writes
        # A thread that was given belongs to its owner.
        self._threads = {self._writes, self._reads} - {writes}
        self._engines: list[Engine] = []
        self._connection: Connection | None = None
        self._reading: Connection | None = None
        self._checkpoints: Checkpoints | None = None
        self._watch: Watch | None = None
        self._wrong = ""  # what is wrong with the files
        self._reserve = Reserve(self._path) if self._path is not None else None
        self._failing = False  # a write has failed since `answer` last succeeded

    async def __aenter__(self) -> Self:
        for thread in self._threads:
            thread.__enter__()
        try:
            await self._writes.run(self._open)
        except BaseException as error:
            await self._close()
            if isinstance(error, (SQLAlchemyError, OSError)):
                raise NoProcess(
                    f"the store cannot be opened: {_why(error)}",
                    cause="store-down",
                    retry_after=1.0,
                ) from error
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    def run(
        self, work: Callable[[Connection], T], operation: str = "other"
    ) -> Coroutine[Any, Any, T]:
        """Run some work in one transaction that may write, and return its result.

        `operation` is its name in metrics. Raise `NoProcess` (store-down) if the database cannot be
        used.
        """
        return self._written(lambda: self._transaction(work), operation)

    def change(self, work: Callable[[Cursor], T], operation: str) -> Coroutine[Any, Any, T]:
        """Do the same with prepared statements alone, which takes a fifth of the time."""
        return self._written(lambda: self._short_transaction(work), operation)

    def read(self, work: Callable[[Cursor], T], operation: str) -> Coroutine[Any, Any, T]:
        """Run some work in a transaction that only reads; it takes no lock that others wait for."""
        return self._answered(self._reads, lambda: self._look(work), operation)

    def prepared(self, statement: UpdateBase, columns: Sequence[str]) -> Prepared:
        """Build a statement for `change`; `columns` are those that it sets."""
        return Prepared(statement, columns, self._engines[0].dialect)

    def query(self, statement: Select[Any]) -> Query:
        """Build a statement for `read`."""
        return Query(statement, self._engines[0].dialect)

    def _written(self, work: Callable[[], T], operation: str) -> Coroutine[Any, Any, T]:
        return self._answered(self._writes, lambda: self._roomy(work, operation), operation)

    async def _answered(self, thread: OneThread, work: Callable[[], T], operation: str) -> T:
        begin, result = time.monotonic(), "ok"
        try:
            return await thread.run(work)
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        except (SQLAlchemyError, sqlite3.Error) as error:
            result = "failed"
            raise NoProcess(
                "the store does not answer", cause="store-down", retry_after=1.0
            ) from error
        finally:
            self._heard(operation, time.monotonic() - begin, result)
            if self._incidents:
                self._tell()

    def incident(self, event: str, **fields: object) -> None:
        """Record an incident, reported at the end of the next call. Thread-safe."""
        self._incidents.append((event, fields))

    def bad_row(self, table: str, *row: object) -> None:
        """Record a row that cannot be read, once."""
        if (table, *row) not in self._bad_rows:
            self._bad_rows.add((table, *row))
            self._told("store.bad_row", table=table, row=row)

    def _tell(self) -> None:
        while self._incidents:
            event, fields = self._incidents.popleft()
            self._told(event, **fields)

    async def answer(self) -> None:
        """Take the write lock and release it; after a write that failed, write as well.

        Raise `NoProcess` (store-down) if the database cannot be used, if its disk is full, or if
        its files are not those that were opened: writes to those would be lost.
        """
        await self._written(self._probe, "answer")
        wrong = await self._reads.run(self._look_at_files)
        self._tell()
        if wrong:
            raise NoProcess(wrong, cause="store-down", retry_after=1.0)

    def _probe(self) -> None:
        self._transaction(lambda connection: self._failing and connection.exec_driver_sql(TOUCH))

    def _look_at_files(self) -> str:
        wrong = self._watch.look() if self._watch is not None else ""
        if wrong and wrong != self._wrong:
            self.incident("store.replaced", error=wrong)
        self._wrong = wrong
        if not wrong and self._reserve is not None and not self._reserve.renew():
            return "the store's disk is full"
        self._failing = self._failing and bool(wrong)
        return wrong

    def _roomy(self, work: Callable[[], T], operation: str) -> T:
        """Write; if the disk is full, give up the reserve and try once more."""
        try:
            return work()
        except (SQLAlchemyError, sqlite3.Error) as error:
            if not self._failing:
                self._failing = True
                self.incident("store.failed", operation=operation, error=_why(error))
            if self._reserve is None or _code(error) not in MAYBE_FULL:
                raise
        self._make_room(self._reserve)
        return work()

    def _make_room(self, reserve: Reserve) -> None:
        """Let the log restart, or grow: its part that is on the disk can be written."""
        assert self._connection is not None
        given = reserve.give_up()
        cursor = self._connection.connection.cursor()
        with contextlib.suppress(sqlite3.Error):
            self._carry_over(cursor)
            if given:
                cursor.execute(BEGIN)
                reserve.lend(given)
                cursor.execute("ROLLBACK")

    def _carry_over(self, cursor: Cursor) -> None:
        if self._watch is not None:
            self._watch.look()
        cursor.execute(CARRY_OVER).fetchone()

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        assert self._connection is not None
        with self._connection.begin():
            result = work(self._connection)
        self._wrote(self._connection.connection.cursor())
        return result

    def _short_transaction(self, work: Callable[[Cursor], T]) -> T:
        assert self._connection is not None
        driver = self._connection.connection
        cursor = driver.cursor()
        try:
            cursor.execute(BEGIN)
            result = work(cursor)
            driver.commit()
        except BaseException:
            driver.rollback()
            raise
        self._wrote(cursor)
        return result

    def _wrote(self, cursor: Cursor) -> None:
        if self._checkpoints is not None:
            self._checkpoints.wrote(cursor)

    def _look(self, work: Callable[[Cursor], T]) -> T:
        assert self._reading is not None
        driver = self._reading.connection
        cursor = driver.cursor()
        try:
            cursor.execute("BEGIN")
            return work(cursor)
        finally:
            driver.rollback()

    def _open(self) -> None:
        try:
            self._connect()
        except (SQLAlchemyError, OSError) as error:
            # The reserve that an earlier server kept lets this one start on a full disk.
            if self._reserve is None or not _is_full(error) or not self._reserve.give_up():
                raise
            self._dispose()
            self._connect()
            self._failing = True

    def _connect(self) -> None:
        if self._path is not None:
            # The files that SQLite makes beside it get the same mode.
            self._path.touch(mode=0o600)
        self._connection = self._connected(BEGIN)
        with self._connection.begin():
            migrate(self._connection)
        if self._path is None:
            self._reading = self._connection
            return
        self._reading = self._connected("BEGIN")
        driver: Any = self._reading.connection.driver_connection
        # One value that is not text must not keep the other rows from being read.
        driver.text_factory = _text
        driver.execute("PRAGMA temp_store = MEMORY")
        with contextlib.suppress(sqlite3.Error):
            # `Watch` would not know whether an existing log had been checkpointed.
            self._carry_over(self._connection.connection.cursor())
        self._watch = Watch(self._path)
        self._checkpoints = Checkpoints(self._path, before=self._watch.look).__enter__()

    def _connected(self, begin: str) -> Connection:
        engine = create_engine(
            self._url, poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        self._engines.append(engine)
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine.connect()

    async def _close(self) -> None:
        try:
            await self._reads.run(lambda: None)
            await self._writes.run(self._dispose)
        finally:
            # Wait for them even if the caller no longer does.
            for thread in self._threads:
                thread.__exit__(None, None, None)
            self._dispose()
            if self._reserve is not None:
                self._reserve.keep()

    def _dispose(self) -> None:
        if self._checkpoints is not None:
            # First: its thread uses what is closed below.
            self._checkpoints.__exit__(None, None, None)
            self._checkpoints = None
        for connection in (self._reading, self._connection):
            if connection is not None:
                connection.close()
        for engine in self._engines:
            engine.dispose()
        self._reading, self._connection, self._engines = None, None, []
        if self._watch is not None:
            self._watch.close()
            self._watch = None


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _code(error: Exception) -> int:
    """Return SQLite's primary error code, 0 if it is none of SQLite's errors."""
    driver = error.orig if isinstance(error, DBAPIError) else error
    return (getattr(driver, "sqlite_errorcode", None) or 0) & 0xFF


def _is_full(error: SQLAlchemyError | OSError) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return _code(error) in MAYBE_FULL


def _why(error: Exception) -> str:
    """Return the driver's own words, which name no path."""
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return error.strerror or "" if isinstance(error, OSError) else str(error)


def _prepare(connection: Any, record: object) -> None:
    try:
        _set_up(connection)
    except Exception:
        # The pool has not taken it yet: nothing else closes it.
        connection.close()
        raise


def _set_up(connection: Any) -> None:
    # The driver's own transactions begin too late to keep a writer out.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # A killed server loses nothing; a power failure may lose the last commits.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # `Checkpoints` does it
