"""`samovard serve` with a socket by which a test looks into it, as an unprivileged user.

Knows the service's insides and one control to take out. Nothing of it is in the product.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from samovard import app, cli, serving
from samovard.app import Service
from samovard.settings import given
from samovard.store.keys import KeyStore
from samovard.store.sessions import SessionStore
from security import controls, unprivileged

BROKEN = "broken"  # a session that nothing can be told of


def main() -> None:
    """Run the service until it is told to stop: CONFIG, SOCKET and perhaps a control's name."""
    config, place, *out = sys.argv[1:]
    unprivileged.become()
    probe = Probe()
    probe.watch()
    for name in out:
        controls.take_out(name)
    running = app.running

    @asynccontextmanager
    async def watched(*given: Any, **named: Any) -> AsyncIterator[Service]:
        async with running(*given, **named) as service:
            probe.service = service
            async with await asyncio.start_unix_server(probe.answer, place):
                yield service

    setattr(serving, "running", watched)  # noqa: B010  # it exports none
    sys.argv = ["samovard", "serve", "--config", config]
    cli.main()


class Probe:
    """What a test may ask of the service; `most` are the largest figures since the last reset."""

    def __init__(self) -> None:
        self.service: Service
        self.most = {"asked": 0, "listed": 0}
        self.put_back: Callable[[], None] = lambda: None
        self._asking = 0

    def watch(self) -> None:
        """Count what reaches the store, and let one session's record be a defect."""
        get, found, load = KeyStore.get, SessionStore.list, SessionStore.load

        async def counted(store: Any, id: str) -> Any:
            self._asking += 1
            self.most["asked"] = max(self.most["asked"], self._asking)
            try:
                return await get(store, id)
            finally:
                self._asking -= 1

        async def listed(store: Any, tenant: str, before: Any, limit: int, *more: Any) -> Any:
            self.most["listed"] = max(self.most["listed"], limit)
            return await found(store, tenant, before, limit, *more)

        async def loaded(store: Any, key: Any) -> Any:
            if key.session == BROKEN:
                raise RuntimeError(f"the record of {key}")
            return await load(store, key)

        instead: dict[Any, dict[str, Any]] = {
            KeyStore: {"get": counted},
            SessionStore: {"list": listed, "load": loaded},
        }
        for place, methods in instead.items():
            for name, method in methods.items():
                setattr(place, name, method)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one question, a line of JSON."""
        asked = json.loads(await reader.readline())
        told: dict[str, Any] = {
            "stats": self.stats,
            "reset": self.reset,
            "settings": self.settings,
            "take_out": self.take_out,
            "put_back": lambda: self.put_back(),
        }
        writer.write(json.dumps(told[asked.pop("do")](**asked)).encode() + b"\n")
        writer.close()  # once it is written; the asker may have gone by then

    def take_out(self, name: str) -> None:
        """Take a control out of the running service."""
        self.put_back = controls.take_out(name)

    def reset(self) -> None:
        """Forget the largest figures."""
        self.most = dict.fromkeys(self.most, 0)

    def settings(self, values: Any) -> str:
        """Return what is wrong with settings, empty if nothing is."""
        try:
            given(values)
        except ValueError as error:
            return str(error)
        return ""

    def stats(self) -> dict[str, int]:
        """Return what the service holds now."""
        service = self.service
        lines = Path("/proc/self/status").read_text().splitlines()
        kib = {
            name: int(rest.split()[0])
            for line in lines
            if "kB" in line
            for name, _, rest in [line.partition(":")]
        }
        tasks = Path("/proc/self/task").iterdir()
        children = [pid for task in tasks for pid in (task / "children").read_text().split()]
        return {
            "resident": kib["VmRSS"] << 10,
            "peak": kib["VmHWM"] << 10,
            "processes": len(children),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "tasks": len(asyncio.all_tasks()),
            "sessions": len(service.sessions),
            "pool": len(service.pool),
            "waiting": service.pool.waiting,
            "running": service.sessions.running,
            "stored": sum(tally.sessions for tally in service.pool.counters.all.values()),
            "held": service.sessions._retention.bytes,
            "uid": os.geteuid(),
            **self.most,
        }


if __name__ == "__main__":
    main()
