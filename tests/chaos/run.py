"""Run turns and their faults in a service of their own, and count what is left at the end."""

import asyncio
import itertools
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.file_descriptors import descriptors
from support.operator_client import operator
from support.service import Running, key_for, prepare, serving, until

from chaos.caller import ADMIN, Caller
from chaos.killer import STATES, Killer, children
from chaos.plan import KILL_EVERY, drawn
from chaos.tally import Tally
from samovar.v1 import session_pb2 as pb

TENANTS, SESSIONS, SLOTS = 16, 64, 24
AT_ONCE = 1.5  # callers for each slot
WHOLE = 30  # kills in each state of a run of full size
TELL_EVERY = 5.0
#: A stopped process makes no progress; on a machine this busy a slow one may take a while.
SILENCE = "5 s"


def tally_of(turns: int) -> Tally:
    """Return a tally whose bounds are those of a run of so many turns."""
    each = turns // KILL_EVERY // len(STATES)
    return Tally(turns, min(WHOLE, each // 2), [state.value for state in STATES])


async def chaos(
    directory: Path,
    turns: int,
    seed: int,
    *,
    tenants: int = TENANTS,
    sessions: int = SESSIONS,
    slots: int = SLOTS,
    say: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Run so many turns in so many sessions, and count.

    `directory` is an empty one for the service's state; `say` is called with the progress.
    """
    tally = tally_of(turns)
    binary = await prepare(directory, fake=True)
    names = [f"tenant-{number}" for number in range(tenants)]
    keys = {name: await key_for(directory, name) for name in names}
    admin = {ADMIN: await key_for(directory, ADMIN, "admin")}
    profile = {"model": "haiku", "first_timeout": SILENCE, "stream_timeout": SILENCE}
    sections: dict[str, Any] = {
        "auth": {"methods": ["api_key"]},
        "pool": {"slots": slots},
        "profiles": {"default": profile},
    }
    begin = time.monotonic()
    async with serving(directory, binary=binary) as run:
        await run.client.ask("Say hello")  # what gRPC and the loop keep for good is there now
        await run.client.close_session("default")
    before = (
        len(descriptors()),
        {thread.ident for thread in threading.enumerate()},
        {*children(), *_theirs(directory)},
    )
    async with serving(directory, binary=binary, **sections) as run, operator(directory) as pools:
        killer = Killer(run.service.pool, seed, tally)
        caller = Caller(run.stub, pools, keys | admin, run.service.pool, killer, tally, directory)
        beside = [
            asyncio.create_task(task)
            for task in (killer.run(), killer.zombies(), _tell(tally, say))
        ]
        numbers = itertools.count()

        async def call() -> None:
            while tally.counts["turns"] < turns:
                await caller.turn(drawn(seed, next(numbers), tenants, sessions))

        async with asyncio.TaskGroup() as group:
            for _ in range(round(AT_ONCE * slots)):
                group.create_task(call())
        beside[0].cancel()
        await killer.watched()
        await _close(run, keys, tally)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
    _look(directory, before, tally)
    tally.seconds = time.monotonic() - begin
    return tally


async def _tell(tally: Tally, say: Callable[[str], None]) -> None:
    while True:
        await asyncio.sleep(TELL_EVERY)
        kills = tally.killed.total()
        broken = [name for name in tally.broken if not name.startswith(("kills", "turns"))]
        done = f"{tally.counts['turns']} of {tally.turns} turns"
        say(f"{done}, {kills} kills, broken: {broken or 'none'}")


async def _close(run: Running, keys: dict[str, str], tally: Tally) -> None:
    """Close every session, and count what is left in the service."""
    service = run.service
    try:
        await until(lambda: not (service.sessions.running or service.pool.waiting))
    except TimeoutError:
        tally.count("turns_left", more=service.sessions.running)
        tally.count("waiters_left", more=service.pool.waiting)
    for key in keys.values():
        metadata = (("authorization", f"Bearer {key}"),)
        listed = await run.stub.ListSessions(
            pb.ListSessionsRequest(page_size=500), metadata=metadata
        )
        for session in listed.sessions:
            request = pb.CloseSessionRequest(session_id=session.session_id)
            await run.stub.CloseSession(request, metadata=metadata)
    root = service.settings.root
    try:
        await until(lambda: homes(root) == 0 and len(service.pool) == 0)
    except TimeoutError:
        tally.count("homes_left", f"{root}", more=homes(root))
        tally.count("processes_left", f"{service.pool}", more=len(service.pool))


def homes(root: Path) -> int:
    """Return how many directories of sessions there are, with those that are being erased."""
    own = [path for path in root.iterdir() if path.is_dir() and path.name != "gone"]
    return len(own) + len([*(root / "gone").iterdir()])


def _look(directory: Path, before: tuple[int, set[Any], set[str]], tally: Tally) -> None:
    """Count what is left of the service once it has ended."""
    for pid in {*children(), *_theirs(directory)} - before[2]:
        tally.count("orphans", pid)
    left = len(descriptors()) - before[0]
    tally.count("descriptors_left", f"{descriptors()}", more=max(left, 0))
    threads = [t for t in threading.enumerate() if t.ident not in before[1] and not _kept(t)]
    tally.count("threads_left", f"{threads}", more=len(threads))


def _kept(thread: threading.Thread) -> bool:
    # gRPC's own, and those of the loop, which has a few at most.
    return thread.daemon or thread.name.startswith("asyncio_")


def _theirs(directory: Path) -> list[str]:
    """Return the pids of processes that run the agent of this service, of any parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if os.fsencode(directory) in path.read_bytes():
                found.append(path.parent.name)
        except OSError:  # it is gone
            continue
    return found
