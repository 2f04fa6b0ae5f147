"""The memory that large messages take: many at once, round after round, on one service."""

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from resource import getpagesize
from typing import Any

import grpc

from bench.figures import Figure, Part, Row
from bench.programs import ROOT, Served, environ
from bench.run import Run
from samovar.v1 import session_pb2 as pb

SEND = "/samovar.v1.Session/Send"
MIB = 1 << 20
SIZE = 8 * MIB - 1024  # of the text: the request has 8 MiB at most
TWICE = 2  # times the rounds: what each leaves behind adds up
SETTINGS = '[auth]\nmethods = ["api_key"]\n[pool]\nslots = 4\n'
LOOK_EVERY = 0.005
SETTLE = 2.0  # seconds until the memory after a round is measured
DEADLINE = 300.0
PUSHBACK = "grpc-retry-pushback-ms"


@dataclass(slots=True)
class Resident:
    """The resident bytes of a process: before, and for each round the maximum and the rest after
    it.
    """

    pid: int
    before: int = 0
    peaks: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = self.now()

    def now(self) -> int:
        """Return the present number of bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * getpagesize()

    @contextmanager
    def round(self) -> Iterator[None]:
        """Measure repeatedly within the block, and once more at its end."""
        most, over = [self.now()], threading.Event()

        def look() -> None:
            while not over.wait(LOOK_EVERY):
                most[0] = max(most[0], self.now())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            self.peaks.append(most[0])
            time.sleep(SETTLE)
            self.after.append(self.now())


def measured(run: Run) -> Part:
    """Send messages of 8 MiB at once, from a caller with a key and then from callers without
    one.
    """
    rounds, count = TWICE * run.sizes.rounds, run.sizes.messages
    with run.serving_agent(telemetry=SETTINGS) as served:
        key = _key(served)
        known = Resident(served.program.pid)
        ends = Counter[str]()
        for number in range(rounds):
            run.tell(f"round {number + 1} of {rounds}: {count} messages")
            with known.round():
                ends += _at_once(served, count, run.sizes.idle, f"Bearer {key}")
        run.tell(f"{count} messages without a credential")
        unknown = Resident(served.program.pid)
        with unknown.round():
            refused = _at_once(served, count, run.sizes.idle, "Bearer none")
    wrong = sum(n for end, n in ends.items() if end not in ("OK", "again"))
    wrong += sum(n for end, n in refused.items() if end != "UNAUTHENTICATED")
    return _part(known, unknown, count, (ends, refused), wrong)


def _part(
    known: Resident, unknown: Resident, count: int, ends: tuple[Counter[str], ...], wrong: int
) -> Part:
    part = Part(
        f"{count} messages of 8 MiB at once, 4 slots",
        ["", "before, MiB", "most, MiB", "after the first, MiB", "after the last, MiB", "ends"],
        wrong=wrong,
    )
    shown = zip(("of a tenant", "without a credential"), (known, unknown), ends, strict=True)
    for name, resident, ended in shown:
        sizes = (resident.before, max(resident.peaks), resident.after[0], resident.after[-1])
        part.rows.append(Row(name, [f"{size / MIB:.0f}" for size in sizes] + [_ends(ended)]))
    part.figures = [
        Figure("messages at once add to memory", _added(known), "MiB", most=300),
        Figure(
            f"memory after round {len(known.after)} against the first",
            known.after[-1] / known.after[0],
            "x",
            most=1.1,
        ),
        Figure("messages without a credential add", _added(unknown), "MiB", most=16),
    ]
    return part


def _ends(ended: Counter[str]) -> str:
    return ", ".join(f"{count} {end}" for end, count in sorted(ended.items()))


def _added(resident: Resident) -> float:
    return (max(resident.peaks) - resident.before) / MIB


def _at_once(served: Served, count: int, pause: float, shown: str) -> Counter[str]:
    """Send so many turns at once, each in its own session. Return how many ended in which way."""
    text = f"wait {1000 * pause:.0f} ".ljust(SIZE, "x")
    body = pb.SendRequest(content=[pb.Content(text=text)]).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    with (
        grpc.insecure_channel(served.address, options) as channel,
        ThreadPoolExecutor(count) as callers,
    ):
        bare: Any = channel
        send = bare.unary_stream(SEND)

        def end(number: int) -> str:
            session = pb.SendRequest(session_id=f"s{number}", spec=pb.SessionSpec())
            # protobuf merges a message field that is written twice.
            call = send(
                session.SerializeToString() + body,
                timeout=DEADLINE,
                metadata=(("authorization", shown),),
            )
            with suppress(grpc.RpcError):
                for _ in call:
                    pass
            code = call.code()
            again = PUSHBACK in dict(call.trailing_metadata() or ())
            return "again" if again else code.name

        return Counter(callers.map(end, range(count)))


def _key(served: Served) -> str:
    config = str(served.config)
    command = [sys.executable, "-m", "samovard", "keys", "add", "bench", "--config", config]
    made = subprocess.run(
        command,
        env=environ(served.config.parent),
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return made.stdout.strip()
