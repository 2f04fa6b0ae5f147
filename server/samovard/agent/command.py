"""Credentials that a program of the operator prints.

Knows how the program is run. Knows nothing of what it asks, nor of how a credential is used.
"""

import asyncio
import contextlib
import hashlib
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import IO

from samovard.agent.credentials import (
    MAX_SECRET_BYTES,
    NO_TENANTS,
    Credential,
    Kind,
    Secret,
    missing,
)

TIMEOUT = 5.0  # seconds for a program
KEPT = 300.0  # seconds for which a credential is kept


class Command:
    """One credential for each tenant, from a program's output.

    The program is run without a shell, with the tenant's name as its last argument and with the
    service's own environment. `pids` are the programs that run now. Used on one loop only.
    """

    def __init__(self, argv: Sequence[str], kind: Kind = Kind.API_KEY) -> None:
        self._argv = tuple(argv)
        self._kind = kind
        self._kept: dict[str, tuple[float, Credential]] = {}
        self._running: dict[str, asyncio.Task[Credential]] = {}
        self._salt = secrets.token_bytes(16)
        self.pids: set[int] = set()

    async def get(self, tenant: str, *, fresh: bool = False) -> Credential:
        """Return what the program prints for a tenant, or printed in the last five minutes.

        Raise `Misconfigured` (credential-missing) if it fails, prints nothing that can be a
        credential, or takes longer than five seconds. A start that belongs to no tenant gets a
        placeholder.
        """
        if not tenant:
            return Credential(self._kind, Secret(NO_TENANTS), "")
        kept = self._kept.get(tenant)
        if kept is not None and not fresh and time.monotonic() - kept[0] < KEPT:
            return kept[1]
        task = self._running.get(tenant)
        if task is None:
            task = self._running[tenant] = asyncio.create_task(self._ask(tenant))
            task.add_done_callback(lambda _: self._running.pop(tenant, None))
        # A caller that leaves does not end it for the others.
        return await asyncio.shield(task)

    async def _ask(self, tenant: str) -> Credential:
        self._kept.pop(tenant, None)
        began = time.monotonic()
        try:
            # On the loop's thread: the sweep for stray children must not come between the spawn
            # and the note of its pid.
            process = subprocess.Popen(  # noqa: ASYNC220  # a millisecond
                [*self._argv, tenant],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except OSError as error:
            raise missing("the credential's command cannot be run") from error
        self.pids.add(process.pid)
        try:
            text = await asyncio.to_thread(_printed, process, began + TIMEOUT)
        finally:
            self.pids.discard(process.pid)
        version = hashlib.blake2b(text.encode(), key=self._salt, digest_size=8).hexdigest()
        found = Credential(self._kind, Secret(text), version)
        self._kept[tenant] = time.monotonic(), found
        return found


def _printed(process: "subprocess.Popen[bytes]", deadline: float) -> str:
    """Return what a program prints until its end, and leave nothing of it."""
    assert process.stdout is not None
    with process.stdout as output:
        try:
            data = _read(output, deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except (TimeoutError, subprocess.TimeoutExpired):
            raise missing("the credential's command takes too long") from None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if code:
        raise missing("the credential's command failed")
    return data.decode("ascii", "replace").strip("\r\n")


def _read(output: IO[bytes], deadline: float) -> bytes:
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        # The end of its output is not awaited without a bound: what it started may hold it open.
        while selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(output.fileno(), MAX_SECRET_BYTES)
            data += piece
            if not piece or len(data) > MAX_SECRET_BYTES + 2:
                return data
    raise TimeoutError
