"""The ledger of this machine's processes: what is known of them when samovard starts again.

Knows pids and what makes them unique. Kills nothing.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from samovard.store.database import Database
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
    """What earlier servers of this instance have left in the ledger."""

    server_ids: tuple[str, ...]
    entries: tuple[Entry, ...]


class Ledger:
    """The processes of one server."""

    def __init__(self, database: Database, server_id: str, boot_id: str) -> None:
        self._database = database
        self._server_id = server_id
        self._boot_id = boot_id

    async def earlier(self) -> Earlier:
        """Gives what earlier servers left."""

        def work(connection: Connection) -> Earlier:
            ids = connection.execute(select(servers.c.server_id)).scalars().all()
            columns = (processes.c.pid, processes.c.boot_id, processes.c.ticks)
            rows = connection.execute(select(*columns)).all()
            return Earlier(tuple(ids), tuple(Entry(*row) for row in rows))

        return await self._database.run(work, "ledger")

    async def begin(self, now: float) -> None:
        """Forgets earlier servers and their processes, and begins this server's pages."""

        def work(connection: Connection) -> None:
            connection.execute(delete(processes))
            connection.execute(delete(servers))
            row = {"server_id": self._server_id, "start_time": now}
            connection.execute(insert(servers).values(**row))

        await self._database.run(work, "ledger")

    async def add(self, process_id: str, pid: int, start_ticks: int) -> None:
        """Writes a process down."""
        row = {
            "process_id": process_id,
            "server_id": self._server_id,
            "pid": pid,
            "boot_id": self._boot_id,
            "ticks": start_ticks,
        }
        await self._database.run(lambda c: c.execute(insert(processes).values(**row)), "ledger")

    async def remove(self, process_id: str) -> None:
        """Strikes a process off."""
        is_it = processes.c.process_id == process_id
        await self._database.run(lambda c: c.execute(delete(processes).where(is_it)), "ledger")
