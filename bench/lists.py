"""The cost of one tenant's reads, and their effect on another tenant's turns.

The reads: a page of sessions in a state, among very many; and sessions that do not exist, each of
which is looked up in the store.
"""

import asyncio
import secrets
import statistics
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import grpc

import samovar
from bench import programs
from bench.figures import Figure, Part, Row, milliseconds
from bench.flood import AT_ONCE, KNOWN, LISTED, UNKNOWN, bearer, request
from bench.programs import Served
from bench.run import Run
from samovar.v1 import session_pb2_grpc
from samovard.core.records import SessionKey, SessionRecord, Spec, TurnRecord
from samovard.edge.identity import new_key
from samovard.store.keys import KeyStore
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database

SESSIONS = 5_000
ALONE = "alone"
DEADLINE = 60.0
SETTINGS = '[auth]\nmethods = ["api_key"]\n'


def measured(run: Run) -> Part:
    """Measure turns of one tenant, alone and beside 32 concurrent reads of another."""
    directory = run.fresh_directory()
    programs.trust(directory, run.agent)
    count = SESSIONS if run.sizes.rounds > 1 else run.sizes.turns
    noisy, quiet = asyncio.run(_filled(directory, count))
    taken: dict[str, list[float]] = {name: [] for name in (ALONE, KNOWN, LISTED, UNKNOWN)}
    with programs.service(directory, run.agent, "", SETTINGS) as served:
        page = _page(served, noisy, run.sizes.turns)
        for number in range(run.sizes.rounds):
            run.tell(f"round {number + 1} of {run.sizes.rounds}")
            for name, medians in taken.items():
                medians.append(_turns(run, served, noisy, quiet, name))
    return _part(page, taken, count)


def _page(served: Served, key: str, count: int) -> float:
    with (
        samovar.Client(served.address, api_key=key, deadline=DEADLINE) as client,
        grpc.insecure_channel(served.address) as channel,
    ):
        client.ask("Say OK")  # the session that is in memory
        method, message = request(LISTED)
        call = getattr(session_pb2_grpc.SessionStub(channel), method)
        return _median(lambda: call(message, metadata=bearer(key)), count)


def _turns(run: Run, served: Served, noisy: str, quiet: str, beside: str) -> float:
    if beside == ALONE:
        return _turn(served, quiet, run.sizes.turns)
    command = ["bench.flood", served.address, noisy, beside]
    with programs.program(command, run.fresh_directory(), "flooding"):
        return _turn(served, quiet, run.sizes.turns)


def _turn(served: Served, key: str, count: int) -> float:
    with samovar.Client(served.address, api_key=key, deadline=DEADLINE) as client:
        client.ask("Say OK")
        return _median(lambda: client.ask("Say OK"), count)


def _median(work: Callable[[], object], count: int) -> float:
    taken = []
    for _ in range(count):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


async def _filled(directory: Path, count: int) -> tuple[str, str]:
    """Make a store with so many sessions of one tenant. Return a key of it and of another."""
    pepper = secrets.token_bytes(32)
    (directory / "pepper").touch(mode=0o600)
    (directory / "pepper").write_bytes(pepper)
    now = time.time()
    texts = []
    async with Database(f"sqlite:///{directory / 'samovar.db'}") as database:
        for tenant in ("noisy", "quiet"):
            text, key = new_key(tenant, pepper, now)
            await KeyStore(database).add(key)
            texts.append(text)
        store = SessionStore(database)
        for number in range(count):
            await store.begin_turn(_record(number, now), TurnRecord(str(uuid.uuid4()), b""))
    return texts[0], texts[1]


def _record(number: int, now: float) -> SessionRecord:
    made = SessionRecord(
        SessionKey("noisy", f"s{number}"),
        Spec("default"),
        uuid.uuid4().hex,
        str(uuid.uuid4()),
        now - number,
        now - number,
        now + 86400.0,
    )
    return replace(made, turn_count=1)


def _part(page: float, taken: dict[str, list[float]], count: int) -> Part:
    title = f"A turn of one tenant beside {AT_ONCE} reads of another, which has {count:,} sessions"
    part = Part(title, ["reads", "p50 ms", "rounds' medians, ms"])
    for name, medians in taken.items():
        spread = f"{milliseconds(min(medians))} to {milliseconds(max(medians))}"
        part.rows.append(Row(name, [milliseconds(statistics.median(medians)), spread]))
    part.figures = [
        Figure("a page of one session, p50", 1000 * page, "ms", most=50.0),
        Figure("a page, to a turn alone", page / statistics.median(taken[ALONE]), "x", most=2.0),
        *(
            Figure(f"a turn beside sessions {name}, to {KNOWN}", _ratio(taken, name), "x", most=1.5)
            for name in (LISTED, UNKNOWN)
        ),
    ]
    return part


def _ratio(taken: dict[str, list[float]], name: str) -> float:
    """Return the ratio of turns' times to those beside reads that the store has no part in."""
    pairs = zip(taken[name], taken[KNOWN], strict=True)
    return statistics.median(one / other for one, other in pairs)
