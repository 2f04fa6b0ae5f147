"""The ledger of this machine's processes, which survives a restart of samovard.

Knows pids and what makes them unique. Kills nothing.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from samovard.store.rows import BadRow, Row, checked
from samovard.store.sqlite.database import Database
from samovard.store.sqlite.prepared import Cursor
from samovard.store.tables import process as processes
from samovard.store.tables import server as servers


@dataclass(frozen=True, slots=True)
class Entry:
    """A process that was started here; `ticks` is its start time since that boot."""

    pid: int
    boot_id: str
    ticks: int


@dataclass(frozen=True, slots=True)
class Earlier:
    """The entries that earlier servers of this instance have left in the ledger."""

    server_ids: tuple[str, ...]
    entries: tuple[Entry, ...]


class Ledger:
    """The ledger entries of one server."""

    def __init__(self, database: Database, server_id: str, boot_id: str) -> None:
        self._database = database
        self._server_id = server_id
        self._boot_id = boot_id

    async def earlier(self) -> Earlier:
        """Return the entries that earlier servers left."""
        ids = self._database.query(select(servers.c.server_id))
        started = self._database.query(select(processes))

        def work(cursor: Cursor) -> tuple[list[Row], list[Row]]:
            return [*ids.run(cursor)], [*started.run(cursor)]

        server_ids, entries = await self._database.read(work, "ledger")
        names = tuple(row["server_id"] for row in server_ids if isinstance(row["server_id"], str))
        return Earlier(names, tuple(self._good(entries)))

    def _good(self, entries: Iterable[Row]) -> Iterator[Entry]:
        for row in entries:
            try:
                yield checked(row, Entry)
            except BadRow:
                self._database.bad_row("process", str(row["process_id"]))

    async def begin(self, now: float) -> None:
        """Forget earlier servers and their processes, and begin the entries of this one."""

        def work(connection: Connection) -> None:
            connection.execute(delete(processes))
            connection.execute(delete(servers))
            row = {"server_id": self._server_id, "start_time": now}
            connection.execute(insert(servers).values(**row))

        await self._database.run(work, "ledger")

    async def add(self, process_id: str, pid: int, start_ticks: int) -> None:
        """Record a process that was started."""
        row = {
            "process_id": process_id,
            "server_id": self._server_id,
            "pid": pid,
            "boot_id": self._boot_id,
            "ticks": start_ticks,
        }
        await self._database.run(lambda c: c.execute(insert(processes).values(**row)), "ledger")

    async def remove(self, process_id: str) -> None:
        """Remove the entry of a process."""
        is_it = processes.c.process_id == process_id
        await self._database.run(lambda c: c.execute(delete(processes).where(is_it)), "ledger")
