"""Checkpoint SQLite's write-ahead log in the background, beside the writer.

By itself SQLite does that within the commit that finds the log long: about every hundredth turn
would wait some milliseconds for the disk. Knows SQLite, nothing of what is stored.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Self

import structlog

from samovard.store.sqlite.prepared import Cursor

EVERY = 200  # transactions
#: Pages that the log may have, or transactions since it had no more, before the writer makes a
#: checkpoint itself. Otherwise the log would never restart if there is a write during every
#: checkpoint.
MOST = 5000
CARRY_OVER = "PRAGMA wal_checkpoint(PASSIVE)"  # waits for no other connection and blocks none

_log = structlog.get_logger("samovard.store")


class Checkpoints:
    """A thread with a connection of its own, while this is entered.

    A checkpoint that fails is tried again with the next; the last one to close the database does
    the rest.
    """

    def __init__(
        self,
        path: Path,
        every: int = EVERY,
        most: int = MOST,
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self._every, self._most = every, most
        self._before = before  # called before the database's file is written
        self._uri = f"{path.absolute().as_uri()}?mode=rw"
        self._written = 0
        self._since = 0  # transactions since the log was last short
        self._orders: SimpleQueue[bool] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Wait for the checkpoint that is in progress."""
        self._orders.put(False)
        self._thread.join()

    def wrote(self, cursor: Cursor) -> None:
        """Count a transaction, and make a checkpoint if the background thread cannot keep up.

        Must be called after each transaction, by one thread only.
        """
        self._written += 1
        if self._written % self._every == 0:
            self._orders.put(True)
        self._since += 1
        if self._since > self._most:
            # The transaction is committed in any case.
            with contextlib.suppress(sqlite3.Error):
                self._before()
                busy, _, _ = cursor.execute(CARRY_OVER).fetchone()
                self._since = self._since if busy else 0

    def _run(self) -> None:
        while self._orders.get():
            if self._since > self._most:
                continue  # the writer would find it busy
            try:
                with contextlib.closing(sqlite3.connect(self._uri, uri=True)) as connection:
                    # As in the writer: the log is synced before the database.
                    connection.execute("PRAGMA synchronous = NORMAL")
                    self._before()
                    _, pages, _ = connection.execute(CARRY_OVER).fetchone()
                    # A long log is left to the writer, however few transactions made it.
                    self._since = 0 if pages <= self._most else self._most + 1
            except Exception as error:  # after any error the next order is tried
                _log.warning("store.log_grows", error=str(error))
