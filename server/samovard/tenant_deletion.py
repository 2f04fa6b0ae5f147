"""Remove all data of a tenant, whether or not a service runs, and prove it.

A mark in the store comes first: on seeing it, a service refuses the tenant's calls and ends what
runs. Then directories are removed, then rows, and the mark with them in the same transaction. So a
deletion that is cut off anywhere is finished by the next run. Knows the store's tables and
sessions' directories.
"""

import asyncio
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path

from samovard.agent import process_tree, procfs
from samovard.agent.home import Homes
from samovard.settings import Settings
from samovard.state_lock import CannotStart, state_directory
from samovard.store.deletions import DeletionStore
from samovard.store.ledger import Ledger
from samovard.store.sqlite import schema
from samovard.store.sqlite.backup import opened
from samovard.store.sqlite.database import Database

#: Seconds from the deletion of the keys to that of the mark: a service caches a key for a while
#: (`identity.CACHE_TIME`), during which the key must stay refused.
HOLD = 3.0
WITHIN = 120.0  # seconds for a service to end what runs
POLL = 0.1
MARK = "deletion"


class NotEnded(Exception):
    """Raised if something of the tenant still runs."""


@dataclass(eq=False, slots=True)
class Deletion:
    """A deletion, and at its end the proof: what was removed, and what is left."""

    tenant: str
    settings: Settings
    store: Path
    homes: Homes
    hold: float = HOLD
    within: float = WITHIN
    rows: Counter[str] = field(default_factory=Counter)
    directories: int = 0
    files: int = 0
    bytes: int = 0
    _removed: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Delete the tenant. Raise `NotEnded`; after that, or a crash, it can be run again."""
        async with Database(self.settings.url) as database:
            self.rows["api_key"] += await DeletionStore(database).begin(self.tenant, time.time())
        begun = time.monotonic()
        done = False
        while not done:
            async with self._ended() as stopped:
                await asyncio.to_thread(self._remove_homes)
                if not stopped:
                    await asyncio.sleep(max(begun + self.hold - time.monotonic(), 0.0))
                done = await asyncio.to_thread(self._remove_rows, stopped=stopped)

    def left(self) -> dict[str, int]:
        """Return how many rows of each table, and how many directories, are left."""
        with closing(opened(self.store)) as store:
            query = "SELECT count(*) FROM {} WHERE tenant = ?"
            left = {
                table: store.execute(query.format(schema.quoted(table)), (self.tenant,)).fetchone()
                for table in schema.of_tenants(store)
            }
        there = [home for home in self._removed if self.homes.path(home).exists()]
        gone = [entry for home in self._removed for entry in self.homes.gone.entries(home)]
        return {table: row[0] for table, row in left.items()} | {
            "directories": len(there) + len(gone)
        }

    def named(self) -> list[str]:
        """Return files of the tenant that only the operator can remove: a mounted credential."""
        mounted = self.settings.credentials.path
        file = mounted / self.tenant if mounted is not None else None
        return [str(file)] if file is not None and file.is_file() else []

    @asynccontextmanager
    async def _ended(self) -> AsyncIterator[bool]:
        """Wait until nothing of the tenant runs. Yield True if no service runs or can start."""
        end = time.monotonic() + self.within
        while True:
            with ExitStack() as stack:
                try:
                    stack.enter_context(state_directory(self.settings.directory))
                except CannotStart:
                    if self._is_ended():
                        yield False
                        return
                else:
                    await self._kill_leftovers()
                    yield True
                    return
            if time.monotonic() >= end:
                raise NotEnded(
                    f"the service has not ended {self.tenant} in {self.within:.0f} s: its log says "
                    "why; then run this again"
                )
            await asyncio.sleep(POLL)

    def _is_ended(self) -> bool:
        with closing(opened(self.store)) as store:
            query = "SELECT quiet_time FROM deletion WHERE tenant = ?"
            row = store.execute(query, (self.tenant,)).fetchone()
            return row is not None and row[0] is not None

    async def _kill_leftovers(self) -> None:
        """End the processes that a killed service has left, as the next start would."""
        async with Database(self.settings.url) as database:
            earlier = await Ledger(database, "", procfs.boot_id()).earlier()
        rows = [process_tree.LedgerRow(e.pid, e.boot_id, e.ticks) for e in earlier.entries]
        if (await process_tree.kill_leftovers(earlier.server_ids, rows)).left:
            raise NotEnded("processes of a service that was killed do not end")

    def _remove_homes(self) -> None:
        for home in self._known() - self._removed:
            for size in _sizes(self.homes.path(home)):
                self.files += 1
                self.bytes += size
            self.directories += self.homes.path(home).is_dir()
            self.homes.remove(home)
            self._removed.add(home)

    def _known(self) -> set[str]:
        with closing(opened(self.store)) as store:
            query = "SELECT home FROM session WHERE tenant = ?"
            names = {str(row[0]) for row in store.execute(query, (self.tenant,))}
        return {name for name in names if re.fullmatch("[0-9a-f]{32}", name)}

    def _remove_rows(self, *, stopped: bool) -> bool:
        """Remove all rows, unless something of the tenant began meanwhile.

        Return True if removed.
        """
        with closing(opened(self.store)) as store:
            store.execute("PRAGMA secure_delete = ON")
            store.execute("BEGIN IMMEDIATE")
            if self._known() - self._removed or not (stopped or self._is_ended()):
                return False
            for table in schema.of_tenants(store):
                query = f"DELETE FROM {schema.quoted(table)} WHERE tenant = ?"  # noqa: S608
                self.rows[table] += store.execute(query, (self.tenant,)).rowcount
            store.execute("COMMIT")
        del self.rows[MARK]
        return True


def _sizes(directory: Path) -> Iterator[int]:
    """Yield the size of each file below a directory. Follow no link."""
    pending = [directory]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(Path(entry.path))
                    else:
                        yield entry.stat(follow_symlinks=False).st_size
        except OSError:  # an agent may have closed a directory, or nested it too deep
            continue
