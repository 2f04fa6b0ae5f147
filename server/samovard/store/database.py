"""The store's database: one thread, one transaction for each call.

Knows SQLAlchemy and SQLite's ways. Knows nothing of what is stored.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from samovard.core.errors import NoProcess
from samovard.store.migrations import migrate

T = TypeVar("T")


class Database:
    """A database, opened and migrated by entering it.

    Calls are answered one after the other, in the order in which they were made.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._thread = ThreadPoolExecutor(1, "store")
        self._engine: Engine | None = None
        self._connection: Connection | None = None

    async def __aenter__(self) -> Self:
        try:
            await self._in_thread(self._open)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def run(self, work: Callable[[Connection], T]) -> T:
        """Does something in one transaction and gives what it gives.

        Raises `NoProcess` (store-down) if the database cannot be used.
        """
        try:
            return await self._in_thread(lambda: self._transaction(work))
        except SQLAlchemyError as error:
            raise NoProcess(
                "the store does not answer", cause="store-down", retry_after=1.0
            ) from error

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _transaction(self, work: Callable[[Connection], T]) -> T:
        assert self._connection is not None
        with self._connection.begin():
            return work(self._connection)

    def _open(self) -> None:
        self._engine = create_engine(
            self._url, poolclass=StaticPool, connect_args={"check_same_thread": False}
        )
        event.listen(self._engine, "connect", _prepare)
        event.listen(self._engine, "begin", _begin)
        self._connection = self._engine.connect()
        with self._connection.begin():
            migrate(self._connection)

    async def _close(self) -> None:
        await self._in_thread(self._dispose)
        self._thread.shutdown()

    def _dispose(self) -> None:
        if self._connection is not None:
            self._connection.close()
        if self._engine is not None:
            self._engine.dispose()


def _prepare(connection: Any, record: object) -> None:
    # The driver's own transactions begin too late to keep a writer out.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode = WAL")
    # A killed server loses nothing; a power failure may lose the last commits.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA busy_timeout = 5000")


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
