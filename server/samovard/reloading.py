"""Reads again what a running service takes without a restart: API keys, the credential, TLS files.

Knows the files. Knows nothing of the signal that asks for it.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from samovard.agent.credentials import File, Provider
from samovard.core.errors import SamovarError
from samovard.edge.certificates import CannotServe, Certificates
from samovard.store import key_file
from samovard.store.database import Database
from samovard.store.keys import KeyStore
from samovard.telemetry.incidents import incident
from samovard.telemetry.recorder import Recorder

_log = structlog.get_logger("samovard.reload")


@dataclass(frozen=True, slots=True)
class Reload:
    """One reload. What cannot be read is reported, and stays as it was."""

    keys: Path | None
    database: Database
    provider: Provider | None
    certificates: Certificates | None
    recorder: Recorder

    async def run(self) -> None:
        """Read everything again, each for itself."""
        parts = {
            "keys": self._keys,
            "credential": self._credential,
            "certificates": self._certificates,
        }
        read = [name for name, part in parts.items() if await self._done(name, part)]
        _log.info("reload.finished", read=read)

    async def _done(self, name: str, part: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await part()
        except (key_file.NotKeys, CannotServe, SamovarError) as error:
            incident(self.recorder, "reload.failed", part=name, error=str(error))
        except Exception:
            # The service must outlive a file that nobody thought of.
            _log.exception("defect", work="reload")
            incident(self.recorder, "reload.failed", part=name, error="defect")
        return False

    async def _keys(self) -> bool:
        if self.keys is None:
            return False
        await KeyStore(self.database).take(key_file.read(self.keys))
        return True

    async def _credential(self) -> bool:
        # Each start reads it anyway: this tells a mistake in it before a turn does.
        if not isinstance(self.provider, File):
            return False
        await self.provider.get("")
        return True

    async def _certificates(self) -> bool:
        # Each handshake looks anyway: this tells a mistake before a caller connects.
        if self.certificates is None:
            return False
        await asyncio.to_thread(self.certificates.reload)
        return True
