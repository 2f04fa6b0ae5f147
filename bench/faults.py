"""The time until a caller learns of a turn's end: by an interrupt, or the death of the agent."""

import os
import random
import signal
import time
import uuid
from collections.abc import Callable

import samovar
from bench.figures import Figure, Part, timed
from bench.programs import Served
from bench.rounds import Sample
from bench.run import Run
from samovard.standin import delay, drip, script, text

INTERRUPT_PART, DEATH_PART = 2, 5  # every 2nd turn is interrupted, every 5th loses its agent
SPREAD = 0.03  # seconds within which the fault comes, so that it meets the turn anywhere
DEADLINE = 60.0
#: The model's activity when the interrupt comes.
TALKING = script(drip(1000, 0.005))
SILENT = script([delay(DEADLINE), text("too late")])

#: One turn that a fault ends: returns the seconds from the fault to the end of the stream, and
#: whether that was the promised end.
Faulty = Callable[[samovar.Client, str, float], tuple[float, bool]]


def interrupts(run: Run) -> Part:
    """Measure from `Interrupt` to the end of the stream."""
    found = _measured(
        run,
        INTERRUPT_PART,
        {
            "while the model talks": lambda *given: _interrupted(TALKING, *given),
            "while the model is silent": lambda *given: _interrupted(SILENT, *given),
        },
    )
    part = timed("From an interrupt to the end of the stream, the real CLI", found)
    every = Sample([seconds for sample in found.values() for seconds in sample.rounds])
    part.figures = _figures("interrupt to the end of the stream", every, {50: 100.0, 99: 500.0})
    return part


def deaths(run: Run) -> Part:
    """Measure from the SIGKILL of the agent to the status at the caller."""
    found = _measured(run, DEATH_PART, {"while the model talks": _killed})
    part = timed("From the death of the agent to the status at the caller, the real CLI", found)
    (sample,) = found.values()
    part.figures = _figures("death to the status at the caller", sample, {99: 250.0})
    return part


def _figures(name: str, sample: Sample, bounds: dict[int, float]) -> list[Figure]:
    return [
        Figure(f"{name}, p{percent}", 1000 * sample.percentile(percent), "ms", most=most)
        for percent, most in bounds.items()
    ]


def _measured(run: Run, part: int, faults: dict[str, Faulty]) -> dict[str, Sample]:
    samples = {name: Sample() for name in faults}
    count = max(run.sizes.turns // part, 1)
    shuffled = random.Random(1)
    with run.serving() as served:
        for number in range(run.sizes.rounds):
            for name in shuffled.sample(sorted(faults), len(faults)):
                run.tell(f"round {number + 1} of {run.sizes.rounds}: {name}")
                _round(served, count, faults[name], samples[name], shuffled)
    return samples


def _round(
    served: Served, count: int, fault: Faulty, sample: Sample, shuffled: random.Random
) -> None:
    session, seconds = f"bench-{uuid.uuid4().hex[:8]}", []
    with samovar.Client(served.address, deadline=DEADLINE) as client:
        client.ask("Say OK", session=session)
        for _ in range(count):
            took, right = fault(client, session, shuffled.uniform(0.0, SPREAD))
            seconds.append(took)
            sample.wrong += not right
        client.close_session(session)
    sample.rounds.append(seconds)


def _interrupted(
    prompt: str, client: samovar.Client, session: str, after: float
) -> tuple[float, bool]:
    """Interrupt a turn, which ends as interrupted; its process stays the same."""
    begin, warm, outcome = 0.0, False, None
    with client.send(prompt, session=session) as turn:
        for event in turn:
            if isinstance(event, samovar.TurnStarted):
                warm = event.start_mode is samovar.StartMode.WARM
                time.sleep(after)
                begin = time.perf_counter()
                client.interrupt(turn.turn_id, session)
            elif isinstance(event, samovar.TurnFinished):
                outcome = event.outcome
    return time.perf_counter() - begin, warm and outcome is samovar.Outcome.INTERRUPTED


def _killed(client: samovar.Client, session: str, after: float) -> tuple[float, bool]:
    """Kill the agent, which costs the turn.

    Each kill is in a session of its own: one whose agent keeps dying is refused for a while.
    """
    session, begin, pid = f"{session}-{uuid.uuid4().hex[:8]}", 0.0, 0
    try:
        with client.send(TALKING, session=session) as turn:
            for event in turn:
                if isinstance(event, samovar.TurnStarted):
                    pid = event.pid
                elif isinstance(event, samovar.TextDelta) and not begin:
                    time.sleep(after)
                    begin = time.perf_counter()
                    os.kill(pid, signal.SIGKILL)
    except samovar.TurnLost:
        took = time.perf_counter() - begin
        client.close_session(session)
        return took, True
    return 0.0, False
