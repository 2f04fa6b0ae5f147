"""Reload what a running service can take without a restart.

API keys, the credential, TLS files, and the tenants' bounds in the settings.

Knows the files. Knows nothing of the signal that asks for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Never

import structlog

from samovard.agent.credentials import File, Provider
from samovard.audit.trail import Trail
from samovard.auditing import user
from samovard.core.errors import SamovarError
from samovard.core.pool.background import repeat
from samovard.edge.certificates import CannotServe, Certificates
from samovard.settings import Settings, SettingsError, load
from samovard.settings.difference import differences
from samovard.store import key_file
from samovard.store.keys import KeyStore
from samovard.store.sqlite.database import Database
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder
from samovard.tenant_bounds import TenantBounds

LOOK_EVERY = 2.0  # seconds between two looks at the settings file

_log = structlog.get_logger("samovard.reload")


class SettingsFile:
    """The settings file of a running service: changed bounds of tenants take effect at once.

    `started` are the settings that the service was started with, as they were read.
    """

    def __init__(
        self, path: Path | None, listen: str | None, started: Settings, tenants: TenantBounds
    ) -> None:
        self._path = path
        self._listen = listen
        self._started = started
        self._tenants = tenants
        self._seen: tuple[int, ...] | None = ()  # differs from any value, so that it is read
        seen = self._look()
        with suppress(SettingsError):
            # Unless it was written while the service started.
            if path is not None and load(path, listen) == started:
                self._seen = seen

    def _look(self) -> tuple[int, ...] | None:
        try:
            found = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return found and (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def changed(self) -> bool:
        """True if the file was replaced, changed or removed since it was read."""
        return self._path is not None and self._look() != self._seen

    def read(self) -> bool:
        """Take what may change from the file and the environment; False if there is no file.

        Raise `SettingsError`, and change nothing, if the file is not valid.
        """
        if self._path is None:
            return False
        self._seen = self._look()  # before the read, so that a change during it is seen
        settings = load(self._path, self._listen)
        self._tenants.take(settings.tenants)
        names = [*differences(self._started, settings)]
        waiting = [name for name in names if not name.startswith("tenants.")]
        if waiting:
            _log.warning("reload.needs_restart", settings=waiting)
        return True


@dataclass(frozen=True, slots=True)
class Reload:
    """One reload. A file that cannot be read is reported, and its old content stays in force."""

    settings: SettingsFile
    keys: Path | None
    database: Database
    provider: Provider | None
    certificates: Certificates | None
    recorder: Recorder
    trail: Trail

    async def run(self) -> None:
        """Reload every file, independently of the others."""
        self.trail.log.reopen()
        await self._run("settings", "keys", "credential", "certificates")

    async def watch(self) -> Never:
        """Check periodically whether the settings file has changed."""
        await repeat(
            "look at settings", self.look, partial(asyncio.sleep, LOOK_EVERY), self.recorder
        )

    async def look(self) -> None:
        """Reload the settings if their file has changed."""
        if await asyncio.to_thread(self.settings.changed):
            await self._run("settings")

    async def _run(self, *names: str) -> None:
        parts = {
            "settings": self._settings,
            "keys": self._keys,
            "credential": self._credential,
            "certificates": self._certificates,
        }
        read = [name for name in names if await self._done(name, parts[name])]
        _log.info("reload.finished", read=read)

    async def _done(self, name: str, part: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await part()
        except (SettingsError, key_file.NotKeys, CannotServe, SamovarError) as error:
            incident(self.recorder, "reload.failed", part=name, error=str(error))
        except Exception:
            # The service must survive any error of a file.
            _log.exception("defect", work="reload")
            incident(self.recorder, "reload.failed", part=name, error="defect")
        return False

    async def _settings(self) -> bool:
        # On the loop, so that no turn sees half of the change; a file takes a few milliseconds.
        return self.settings.read()

    async def _keys(self) -> bool:
        if self.keys is None:
            return False
        told = key_file.read(self.keys)
        await self.trail.act("keys.take", user(), count=len(told))
        await KeyStore(self.database).take(told)
        return True

    async def _credential(self) -> bool:
        # Each start reads it anyway: this reports a mistake in it before a turn meets it.
        if not isinstance(self.provider, File):
            return False
        await self.provider.get("")
        return True

    async def _certificates(self) -> bool:
        # Each handshake looks anyway: this reports a mistake before a caller connects.
        if self.certificates is None:
            return False
        await asyncio.to_thread(self.certificates.reload)
        return True
