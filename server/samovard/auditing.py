"""The audit log of a running service, from the settings.

Knows where it is written and how long it lives. Knows nothing of calls.
"""

import asyncio
import os
import pwd
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from samovard.audit import lines
from samovard.audit.log import AuditLog, Carrier
from samovard.audit.sink import OFF, Sink, descriptor_of, sink
from samovard.audit.trail import NoLog, Trail
from samovard.core.errors import NoProcess
from samovard.settings import Settings
from samovard.telemetry.recorder import Recorder


class CannotAudit(Exception):
    """Raised if the audit log cannot be written; the message is one sentence with the reason."""


def opened(settings: Settings) -> Sink:
    """Return where audit lines go. Raise `CannotAudit`."""
    try:
        return sink(settings.audit_sink, own=not settings.auth.audit_sink)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        raise CannotAudit(f"auth.audit_sink: {what}") from error


def user() -> str:
    """Return the name of this process's user, or its number."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def act(settings: Settings, act: str, **fields: str | int | list[str]) -> None:
    """Write an act of this program, which runs outside the service. Raise `CannotAudit`.

    An inherited descriptor belongs to the service; the line then goes to stderr instead.
    """
    if settings.audit_sink == OFF:
        return
    line = lines.act(time.time(), act, user(), **fields)
    beside = descriptor_of(settings.audit_sink) is not None
    to = sink("stderr") if beside else opened(settings)
    try:
        error = to.write([line]).error
    finally:
        to.close()
    if error is not None:
        raise CannotAudit(f"auth.audit_sink: {error.strerror or error}")


def connections(trail: Trail) -> Callable[[Any], None]:
    """Return what records a connection of an agent's tool, a `Passage` of the broker's.

    It may be called on any thread.
    """
    loop = asyncio.get_running_loop()

    def record(passage: Any) -> None:
        loop.call_soon_threadsafe(trail.connected, asdict(passage))

    return record


@asynccontextmanager
async def auditing(
    settings: Settings, recorder: Recorder, server_id: str, version: str, store: Carrier
) -> AsyncIterator[Trail]:
    """Keep the audit log of a service. Raise `CannotAudit` if its first line cannot be written.

    `store` is the thread that writes to the store.
    """
    if settings.audit_sink == OFF:
        yield Trail(NoLog(), time.time, server_id, version)
        return
    # Only beside the store's own files does what stops the one stop the other anyway.
    carrier = store if not settings.auth.audit_sink else None
    async with AuditLog(opened(settings), recorder, _resumed, carrier=carrier) as log:
        trail = Trail(log, time.time, server_id, version)
        try:
            await trail.started()
        except NoProcess as error:
            raise CannotAudit(f"auth.audit_sink: {error.message}") from error
        try:
            yield trail
        finally:
            trail.close()


def _resumed(refused: int) -> bytes:
    return lines.Resumed(time=lines.at(time.time()), refused=refused).encoded()
