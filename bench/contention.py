"""More callers than slots: how many processes live, and how many turns are warm and how fast."""

import statistics
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import samovar
from bench.figures import Figure, Part, Row
from bench.programs import Served
from bench.run import Run

CALLERS, SLOTS, SESSIONS = 8, 6, 3  # the last for each caller
STINT = 5  # turns of one session before its caller goes on to the next: 80 % can be warm
SAMPLE_EVERY = 0.05
DEADLINE = 60.0


@dataclass(slots=True)
class _Round:
    """The result of one round: `alive` has a count of processes for each sample."""

    warm: list[bool] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)
    seconds: float = 0.0
    wrong: int = 0


def measured(run: Run) -> Part:
    """Run turns of the real CLI on fewer slots than callers."""
    each = max(run.sizes.turns // CALLERS, 1)
    rounds = []
    with run.serving(f"[pool]\nslots = {SLOTS}\n") as served:
        for number in range(run.sizes.rounds):
            run.tell(f"round {number + 1} of {run.sizes.rounds}")
            rounds.append(_round(served, each))
    return _part(rounds)


def _round(served: Served, turns: int) -> _Round:
    made = _Round()
    begin = time.perf_counter()
    with _counting(served.program.pid, made.alive), ThreadPoolExecutor(CALLERS) as callers:
        for warm, wrong in callers.map(lambda _: _caller(served, turns), range(CALLERS)):
            made.warm += warm
            made.wrong += wrong
    made.seconds = time.perf_counter() - begin
    return made


def _caller(served: Served, turns: int) -> tuple[list[bool], int]:
    """Run turns in sessions of the caller's own, several in each before the next."""
    names = [f"bench-{uuid.uuid4().hex[:8]}" for _ in range(SESSIONS)]
    warm, wrong = [], 0
    with samovar.Client(served.address, deadline=DEADLINE) as client:
        for name in islice(_stints(names), turns):
            mode, answer = _turn(client, name)
            warm.append(mode is samovar.StartMode.WARM)
            wrong += answer != "OK"
        for name in names[: -(-turns // STINT)]:
            client.close_session(name)
    return warm, wrong


def _stints(names: list[str]) -> Iterator[str]:
    while True:
        for name in names:
            yield from [name] * STINT


def _turn(client: samovar.Client, session: str) -> tuple[samovar.StartMode | None, str]:
    mode, answer = None, ""
    with client.send("Say OK", session=session) as turn:
        for event in turn:
            if isinstance(event, samovar.TurnStarted):
                mode = event.start_mode
            elif isinstance(event, samovar.TurnFinished):
                answer = event.result
    return mode, answer


@contextmanager
def _counting(pid: int, alive: list[int]) -> Iterator[None]:
    """Count the service's children repeatedly until the block is left."""
    over = threading.Event()

    def count() -> None:
        while not over.wait(SAMPLE_EVERY):
            with suppress(OSError):  # a thread ended at this moment
                tasks = Path(f"/proc/{pid}/task").glob("*/children")
                alive.append(sum(len(task.read_text().split()) for task in tasks))

    counter = threading.Thread(target=count)
    counter.start()
    try:
        yield
    finally:
        over.set()
        counter.join()


def _part(rounds: list[_Round]) -> Part:
    title = f"{CALLERS} callers, {CALLERS * SESSIONS} sessions, {SLOTS} slots, the real CLI"
    part = Part(title, ["round", "processes alive", "warm, %", "turns/s", "turns"])
    shown = [
        (
            statistics.mean(each.alive or [0]),
            100 * statistics.mean(each.warm),
            len(each.warm) / each.seconds,
        )
        for each in rounds
    ]
    for number, (cells, each) in enumerate(zip(shown, rounds, strict=True), 1):
        part.rows.append(Row(str(number), [*(f"{c:.2f}" for c in cells), str(len(each.warm))]))
        part.wrong += each.wrong
    alive, warm, rate = (statistics.median(values) for values in zip(*shown, strict=True))
    part.figures = [
        Figure("processes alive under contention", alive, least=4.0),
        Figure("warm turns under contention", warm, "%"),
        Figure("turns under contention", rate, "turns/s"),
    ]
    return part
