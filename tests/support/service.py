"""A service in the test's own loop, on the real CLI with a stand-in or on the fake one."""

import asyncio
import fcntl
import functools
import hashlib
import json
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import install
from support import shared
from support.timeouts import BOUND

import samovar
from samovar.v1 import session_pb2, session_pb2_grpc
from samovard.agent import binary
from samovard.app import Service, running
from samovard.core.errors import Misconfigured
from samovard.edge.identity import new_key
from samovard.secret import pepper
from samovard.settings import Settings
from samovard.standin import StandIn
from samovard.store.keys import KeyStore
from samovard.store.sqlite.database import Database

VERSION = "2.1.330"
#: The fake CLI is made of files that walls would hide, and tests of walls ask for them.
OPEN = {"require": "none", "mechanism": "none", "network_require": "best"}
#: Tools of the profile `tools`, which may use them without asking.
TOOLS = ["Bash", "Read", "Write"]


@dataclass
class Running:
    """A running service and what a test needs of it."""

    service: Service
    client: samovar.AsyncClient
    stub: Any
    stand_in: StandIn
    directory: Path

    @property
    def address(self) -> str:
        return self.service.address

    def asked(self) -> list[tuple[str, ...]]:
        """Return the texts of each request that the stand-in saw."""
        return [request.texts for request in self.stand_in.requests]


@functools.cache
def real() -> Path:
    try:
        return binary.find(None, "").path
    except Misconfigured:
        pytest.skip("the claude CLI is not installed: it comes with samovard[claude]")


async def _notes() -> dict[str, bytes]:
    """Return what the self-test of the real CLI recorded, which passes once in a whole run."""
    notes = shared.place() / "notes"
    with open(shared.place() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not notes.exists():
            await _note(notes)
    return {file.name: file.read_bytes() for file in notes.iterdir()}


async def _note(notes: Path) -> None:
    """Boot with the real CLI, and keep what its self-test records."""
    directory = Path(tempfile.mkdtemp(prefix=""))
    made = Path(tempfile.mkdtemp(dir=notes.parent))
    try:
        async with running(Settings.model_validate(_values(directory, real()))):
            pass
        for file in (*directory.glob("cli-*"), directory / "self-test.json"):
            shutil.copy(file, made)
    finally:
        shutil.rmtree(directory)
    made.rename(notes)


def _values(directory: Path, binary: Path, **sections: Any) -> dict[str, Any]:
    key = directory / "key"
    key.touch(mode=0o600)
    key.write_text("sk-test")
    defaults: dict[str, Any] = {
        "server": {"listen": "127.0.0.1:0"},
        "state": {"directory": directory},
        "agent": {"cli": binary},
        "isolation": OPEN,
        "pool": {"slots": 8},
        "profiles": {
            "default": {"model": "haiku", "models": ["opus"]},
            "tools": {"model": "haiku", "tools": TOOLS, "allowed_tools": TOOLS},
        },
        "credentials": {"provider": "file", "path": key},
    }
    return {
        name: defaults.get(name, {}) | sections.get(name, {}) for name in {*defaults, *sections}
    }


async def prepare(directory: Path, *, fake: bool = False) -> Path:
    """Prepare a state directory so that no self-test is due. Return the CLI."""
    if fake:
        binary = install(directory)
        digest = hashlib.sha256(binary.read_bytes()).hexdigest()
        passed = {f"{digest} {how}": VERSION for how in ("broker", "descriptor")}
        notes = {"self-test.json": json.dumps(passed).encode()}
    else:
        binary, notes = real(), await _notes()
    for name, content in notes.items():
        (directory / name).write_bytes(content)
    return binary


@asynccontextmanager
async def serving(
    directory: Path,
    *,
    fake: bool = False,
    binary: Path | None = None,
    trial: bool = False,
    **sections: Any,
) -> AsyncIterator[Running]:
    """Run a service; at its end nothing of it may be left.

    Without `trial` it assumes that the CLI starts, as the self-test has shown, and starts none to
    find out.
    """
    binary = binary or await prepare(directory, fake=fake)
    tasks = asyncio.all_tasks()
    async with StandIn() as stand_in:
        values = _values(directory, binary, **sections)
        values["credentials"].setdefault("upstream", stand_in.url)
        async with running(Settings.model_validate(values)) as service:
            if not trial:
                service.maintenance.readiness.answered(tried=True)
            await service.maintenance.settled()
            channel = grpc.aio.insecure_channel(service.address)
            async with samovar.AsyncClient(service.address, deadline=BOUND) as client, channel:
                stub = session_pb2_grpc.SessionStub(channel)
                yield Running(service, client, stub, stand_in, directory)
        assert len(service.pool) == 0, service.pool
    left = {task for task in asyncio.all_tasks() - tasks if not task.done()}
    assert not left, f"tasks are left: {left}"


async def key_for(directory: Path, tenant: str, *scopes: str) -> str:
    """Make an API key for a tenant, as `samovard keys add` does, or one with these scopes."""
    settings = Settings.model_validate({"state": {"directory": directory}})
    text, record = new_key(tenant, pepper(settings), 0.0)
    record = replace(record, scopes=frozenset(scopes) or record.scopes)
    async with Database(settings.url) as database:
        await KeyStore(database).add(record)
    return text


def free_port() -> int:
    """Return a port that is free at this moment."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


async def until(condition: Callable[[], object], seconds: float = BOUND) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def raw(stub: Any, request: session_pb2.SendRequest, **options: Any) -> list[Any]:
    """Send with a bare stub and return the responses."""
    return [response async for response in stub.Send(request, **options)]


def simple(text: str, **fields: Any) -> session_pb2.SendRequest:
    """Return a request of one text block."""
    return session_pb2.SendRequest(content=[session_pb2.Content(text=text)], **fields)
