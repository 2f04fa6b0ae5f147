"""The store's database: one thread, one transaction for each call.

Knows SQLAlchemy and SQLite's ways. Knows nothing of what is stored.
"""

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import StaticPool
from sqlalchemy.sql.dml import UpdateBase

from samovard.core.errors import NoProcess
from samovard.store.checkpoints import Checkpoints
from samovard.store.migrations import migrate
from samovard.store.prepared import Cursor, Prepared
from samovard.store.thread import OneThread

T = TypeVar("T")

BEGIN = "BEGIN IMMEDIATE"

#: Hears of each call: which it was, the seconds until it was answered, and `ok`, `failed` or
#: `cancelled`.
Heard = Callable[[str, float, str], None]


class Database:
    """A database, opened and migrated by entering it.

    Entering raises `NoProcess` (store-down) if it cannot be opened, `SchemaTooNew` if a
    later version wrote it. Calls are answered one after the other, in the order in which
    they were made.
    """

    def __init__(self, url: str, heard: Heard = lambda operation, seconds, result: None) -> None:
        self._url = url
        self._heard = heard
        self._thread = OneThread("store")
        self._engine: Engine | None = None
        self._connection: Connection | None = None
        self._file: tuple[int, int] | None = None
        self._checkpoints: Checkpoints | None = None

    async def __aenter__(self) -> Self:
        self._thread.__enter__()
        try:
            await self._thread.run(self._open)
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

    async def run(self, work: Callable[[Connection], T], operation: str = "other") -> T:
        """Does something in one transaction and gives what it gives.

        `operation` is its name among the measurements. Raises `NoProcess` (store-down) if
        the database cannot be used.
        """
        return await self._answered(lambda: self._transaction(work), operation)

    async def change(self, work: Callable[[Cursor], T], operation: str) -> T:
        """Does the same with prepared statements alone, which costs a fifth."""
        return await self._answered(lambda: self._short_transaction(work), operation)

    def prepared(self, statement: UpdateBase, columns: Sequence[str]) -> Prepared:
        """Builds a statement for `change`; `columns` are those that it sets."""
        assert self._engine is not None
        return Prepared(statement, columns, self._engine.dialect)

    async def _answered(self, work: Callable[[], T], operation: str) -> T:
        assert self._engine is not None
        begin, result = time.monotonic(), "ok"
        try:
            return await self._thread.run(work)
        except asyncio.CancelledError:
            result = "cancelled"
            raise
        except (SQLAlchemyError, self._engine.dialect.loaded_dbapi.Error) as error:
            result = "failed"
            raise NoProcess(
                "the store does not answer", cause="store-down", retry_after=1.0
            ) from error
        finally:
            self._heard(operation, time.monotonic() - begin, result)

    async def answer(self) -> None:
        """Takes the write lock and gives it back.

        Raises `NoProcess` (store-down) if the database cannot be used, or if its file is not
        the one that was opened: what is written to that is lost.
        """
        await self.run(lambda connection: connection.execute(select(1)), "answer")
        if self._file != await self._thread.run(self._identity):
            raise NoProcess("the store is gone", cause="store-down", retry_after=1.0)

    def _identity(self) -> tuple[int, int] | None:
        path = make_url(self._url).database
        try:
            found = os.stat(str(path))
        except OSError:  # in memory, or gone
            return None
        return found.st_dev, found.st_ino

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        assert self._connection is not None
        with self._connection.begin():
            return work(self._connection)

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
        if self._checkpoints is not None:
            self._checkpoints.wrote(cursor)
        return result

    def _open(self) -> None:
        url = make_url(self._url)
        is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
        if is_file:
            # What SQLite puts beside it gets the same mode.
            Path(str(url.database)).touch(mode=0o600)
        self._engine = create_engine(
            url, poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._connection = self._engine.connect()
        with self._connection.begin():
            migrate(self._connection)
        self._file = self._identity()
        if is_file:
            self._checkpoints = Checkpoints(Path(str(url.database))).__enter__()

    async def _close(self) -> None:
        try:
            await self._thread.run(self._dispose)
        finally:
            # Waits for both also when the caller does not any more.
            self._thread.__exit__(None, None, None)
            if self._checkpoints is not None:
                self._checkpoints.__exit__(None, None, None)

    def _dispose(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._engine is not None:
            self._engine.dispose()


def _why(error: SQLAlchemyError | OSError) -> str:
    """Gives the driver's own words, which name no path."""
    if isinstance(error, DBAPIError):
        return str(error.orig)
    return error.strerror or "" if isinstance(error, OSError) else str(error)


def _prepare(connection: Any, record: object) -> None:
    # The driver's own transactions begin too late to keep a writer out.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # A killed server loses nothing; a power failure may lose the last commits.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # `Checkpoints` does it


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(BEGIN)
