"""Carries SQLite's write-ahead log over into its database, beside whoever writes.

By itself SQLite does it within the commit that finds the log long: about every hundredth turn
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
#: Pages that the log may have, or transactions since it had no more, before the writer does it
#: itself. Else it never begins anew where something is written during each carrying over.
MOST = 5000
CARRY_OVER = "PRAGMA wal_checkpoint(PASSIVE)"  # waits for nobody, and nobody for it

_log = structlog.get_logger("samovard.store")


class Checkpoints:
    """A thread with a connection of its own, while this is entered.

    What fails is tried again with the next; whoever closes the database last does the rest.
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
        self._since = 0  # transactions since the log was seen to be short
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
        """Waits for the one that is under way."""
        self._orders.put(False)
        self._thread.join()

    def wrote(self, cursor: Cursor) -> None:
        """Hears of a transaction; one thread calls it, and does it itself if it has to be."""
        self._written += 1
        if self._written % self._every == 0:
            self._orders.put(True)
        self._since += 1
        if self._since > self._most:
            # What was written is committed, whatever becomes of this.
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
                    # As for the one who writes: the log is synced before the database.
                    connection.execute("PRAGMA synchronous = NORMAL")
                    self._before()
                    _, pages, _ = connection.execute(CARRY_OVER).fetchone()
                    # A long log is the writer's, however few transactions made it.
                    self._since = 0 if pages <= self._most else self._most + 1
            except Exception as error:  # whatever it is, the next order is tried
                _log.warning("store.log_grows", error=str(error))
