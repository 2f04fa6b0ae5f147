"""The time of a call about another tenant's session, and about one that does not exist.

`python -m bench.equality` prints one line of JSON: the medians of both, in milliseconds, by method.
The calls of both are made in turn, so that other load of the machine affects both alike.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from bench import programs
from samovar.v1 import session_pb2 as pb
from samovar.v1 import session_pb2_grpc
from samovard.core.records import SessionKey, SessionRecord, Spec, TurnRecord
from samovard.edge.identity import new_key
from samovard.secret import pepper
from samovard.settings import Settings, given
from samovard.store.keys import KeyStore
from samovard.store.sessions import SessionStore
from samovard.store.sqlite.database import Database

THEIRS, NOBODYS = "theirs", "nobody"
TURN = str(uuid.uuid4())
CALLS: dict[str, Callable[[str], Any]] = {
    "GetSession": lambda name: pb.GetSessionRequest(session_id=name),
    "Interrupt": lambda name: pb.InterruptRequest(session_id=name, turn_id=TURN),
    "CloseSession": lambda name: pb.CloseSessionRequest(session_id=name),
}


async def prepared(settings: Settings) -> str:
    """Store a session of one tenant; return a key of another."""
    text, record = new_key("blue", pepper(settings), time.time())
    key = SessionKey("acme", THEIRS)
    now = time.time()
    session = SessionRecord(key, Spec(), uuid.uuid4().hex, TURN, now, now, now + 86400.0)
    async with Database(settings.url) as database:
        await KeyStore(database).add(record)
        await SessionStore(database).begin_turn(session, TurnRecord(TURN, b""))
    return text


async def measured(address: str, key: str, rounds: int) -> dict[str, dict[str, float]]:
    """Return the medians of each method in milliseconds."""
    found: dict[str, dict[str, float]] = {}
    metadata = (("authorization", f"Bearer {key}"),)
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = session_pb2_grpc.SessionStub(channel)
        for method, request in CALLS.items():
            times: dict[str, list[float]] = {THEIRS: [], NOBODYS: []}
            for number in range(rounds):
                for name in (THEIRS, NOBODYS) if number % 2 else (NOBODYS, THEIRS):
                    begin = time.perf_counter()
                    try:
                        await getattr(stub, method)(request(name), metadata=metadata)
                    except grpc.aio.AioRpcError as error:
                        if error.code() is not grpc.StatusCode.NOT_FOUND:
                            raise
                    times[name].append(1000 * (time.perf_counter() - begin))
            medians = {name: round(statistics.median(each), 4) for name, each in times.items()}
            found[method] = {"another tenant's": medians[THEIRS], "none": medians[NOBODYS]}
    return found


def main() -> None:
    """Measure, and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500, help="calls of each kind, by method")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="") as made:
        directory = Path(made)
        agent = programs.compiled(directory)
        programs.trust(directory, agent)
        key = asyncio.run(prepared(given({"state": {"directory": directory}})))
        auth = '[auth]\nmethods = ["api_key"]\n'
        with programs.service(directory, agent, "", auth) as served:
            print(json.dumps(asyncio.run(measured(served.address, key, rounds))))


if __name__ == "__main__":
    main()
