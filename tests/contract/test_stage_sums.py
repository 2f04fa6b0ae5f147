"""A turn's latency decomposes completely, however it got its process and however it ended.

Real turns of the real CLI for the ways to a process, of the fake agent for the endings. Each
is told four times: by its span, its timings, its log line and the histograms.
"""

import asyncio
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from structlog.testing import capture_logs
from support.otlp_collector import Point, Span, collecting
from support.permission_turns import ASKS, until_asked, writes
from support.service import Running, raw, serving, simple, until

from samovar.v1 import session_pb2 as pb
from samovard.standin import delay, script, text
from samovard.telemetry import names
from samovard.telemetry.stages import MARKS, PARTS

SEND = "samovar.v1.Session/Send"
#: What the fake agent does, and how the turn's line says that it ended.
ENDINGS: dict[str, tuple[list[Any], tuple[str, str, str]]] = {
    "answers": ([v.text("x")], ("OK", "completed", "")),
    "has nothing to say": ([], ("OK", "completed", "")),
    "fails upstream": ([v.api_error(529)], ("OK", "failed", "")),
    "takes too long": ([v.drip(500, ms=20)], ("OK", "limit_reached", "")),
    "is interrupted": ([v.hang()], ("OK", "interrupted", "")),
    "loses its caller": ([v.drip(500, ms=20)], ("CANCELLED", "interrupted", "")),
    "dies": ([v.text("x"), v.die("mid_text", signal=9)], ("ABORTED", "lost", "process-died")),
    "talks rubbish": ([v.bad_utf8()], ("INTERNAL", "lost", "protocol-violated")),
}


@dataclass
class Told:
    """What was told of some turns, by their names here, and the histograms."""

    ids: dict[str, str] = field(default_factory=dict)
    spans: dict[str, Span] = field(default_factory=dict)
    lines: dict[str, dict[str, Any]] = field(default_factory=dict)
    timings: dict[str, dict[str, int]] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)

    def stages(self, turn: str) -> dict[str, int]:
        """Gives a turn's stages by its span, in nanoseconds."""
        return {name: at - before for (_, before), (name, at) in pairwise(self.spans[turn].events)}


@pytest.fixture(scope="module")
def found(root: Path) -> Iterator[Told]:
    """Runs every turn once: each test looks at one side of them."""
    kept = Told()
    directory = Path(tempfile.mkdtemp(dir=root, prefix=""))
    asyncio.run(story(directory, kept))
    shutil.rmtree(directory)
    yield kept


async def story(directory: Path, kept: Told) -> None:
    asks = {"default": {"model": "haiku"}, "asks": ASKS}
    async with telling(directory / "r", kept, pool={"slots": 1}, profiles=asks) as run:
        await ways(run, kept)
    async with telling(directory / "f", kept, fake=True, pool={"slots": len(ENDINGS)}) as run:
        await asyncio.gather(*(ends(run, name, kept) for name in ENDINGS))
        with pytest.raises(grpc.aio.AioRpcError):
            await send(run, "refused", simple("x", session_id="none"), kept)
        # A turn that has lost its caller ends without it: by its interrupt, not by ours.
        await until(lambda: not run.service.sessions.running)


@asynccontextmanager
async def telling(directory: Path, kept: Told, **settings: Any) -> AsyncIterator[Running]:
    """Runs a service, and keeps what it tells of its turns."""
    directory.mkdir()
    with collecting() as collector, capture_logs() as lines:
        telemetry = {"endpoint": collector.grpc_url}
        async with serving(directory, telemetry=telemetry, **settings) as run:
            yield run
    ids = {turn_id: name for name, turn_id in kept.ids.items()}
    for span in collector.named(SEND):
        kept.spans[ids[span.attributes["samovar.turn.id"]]] = span
    for line in lines:
        if line["event"] in ("turn.finished", "turn.refused"):
            kept.lines[ids[line["turn"]]] = dict(line)
    kept.points += collector.points.values()


async def send(run: Running, name: str, request: pb.SendRequest, kept: Told) -> None:
    """Runs a turn; raises what its call ends with."""
    kept.ids[name] = request.turn_id = str(uuid.uuid4())
    for response in await raw(run.stub, request):
        for event in response.events:
            if event.HasField("turn_finished"):
                kept.timings[name] = stamps(event.turn_finished.timings)


def stamps(timings: pb.TurnTimings) -> dict[str, int]:
    """Gives the marks that the caller is told, in nanoseconds since the epoch."""
    return {
        field.name.removesuffix("_time"): value.ToNanoseconds()
        for field, value in timings.ListFields()
        if field.name.endswith("_time")
    }


async def ways(run: Running, kept: Told) -> None:
    """One slot: a cold turn, a warm one, one that waits, a resumed one, one that is asked."""
    spec = pb.SessionSpec()
    await send(run, "cold", simple("Say a", session_id="s", spec=spec), kept)
    seen = len(run.stand_in.requests)
    slow = simple(script([delay(0.3), text("b")]), session_id="s")
    first = asyncio.create_task(send(run, "warm", slow, kept))
    await until(lambda: len(run.stand_in.requests) > seen)
    await send(run, "queued", simple("Say c", session_id="s"), kept)
    await first
    await asked(run, kept)
    await send(run, "resumed", simple("Say d", session_id="s"), kept)


async def asked(run: Running, kept: Told) -> None:
    """Has a tool allowed in another session, for which the first one's process goes."""
    prompt, name = script(writes(), text("x")), "permission"
    async with run.client.send(prompt, session="p", profile="asks") as turn:
        kept.ids[name] = turn.turn_id
        _, (request,) = await until_asked(turn)
        await run.client.allow(request.permission_id, "p")
        async for _ in turn:
            pass


async def ends(run: Running, name: str, kept: Told) -> None:
    """Runs a turn that ends so, in a session of its own."""
    verbs, (_, outcome, _) = ENDINGS[name]
    session = name.replace(" ", "-")
    request = simple(fake(*verbs), session_id=session, spec=pb.SessionSpec())
    kept.ids[name] = request.turn_id = str(uuid.uuid4())
    if outcome == "limit_reached":
        request.limits.turn_timeout.FromMilliseconds(100)
    call = run.stub.Send(request)
    with suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        async for response in call:
            if name == "is interrupted":
                named = pb.InterruptRequest(session_id=session, turn_id=request.turn_id)
                await run.stub.Interrupt(named)
            if name == "loses its caller":
                call.cancel()
            if response.events[-1].HasField("turn_finished"):
                kept.timings[name] = stamps(response.events[-1].turn_finished.timings)


WAYS = {
    "cold": "cold",
    "warm": "warm",
    "queued": "warm",
    "permission": "cold",
    "resumed": "resumed",
}
EVERY = [*WAYS, *ENDINGS]


def test_every_turn_went_as_it_was_to(found: Told) -> None:
    """Each got its process so, and ended so: else the sums below say little."""
    assert {name: found.lines[name]["start_mode"] for name in WAYS} == WAYS
    ended = {
        name: tuple(found.lines[name][field] for field in ("status", "outcome", "cause"))
        for name in ENDINGS
    }
    assert ended == {name: how for name, (_, how) in ENDINGS.items()}
    assert found.lines["refused"]["event"] == "turn.refused"
    assert found.lines["queued"]["wait_ms"] > 10
    assert found.lines["permission"]["permission_wait_ms"] > 0
    assert found.lines["resumed"]["own_ms"] > 0


@pytest.mark.parametrize("name", [*EVERY, "refused"])
def test_stages_are_the_whole_of_the_span(name: str, found: Told) -> None:
    """They follow each other in their order, from its begin to its end, to the nanosecond."""
    span, stages = found.spans[name], found.stages(name)
    assert span.events[0] == ("receive", span.begin)
    assert span.events[-1] == ("deliver", span.end)
    assert sum(stages.values()) == span.duration
    assert list(stages) == [mark for mark in MARKS if mark in stages]
    assert all(time >= 0 for time in stages.values())


@pytest.mark.parametrize("name", EVERY)
def test_the_line_tells_the_same_stages(name: str, found: Told) -> None:
    """The same names, the same times, and their sum as the total."""
    line, stages = found.lines[name], found.stages(name)
    told = {mark: line[f"{mark}_ms"] for mark in MARKS[1:] if f"{mark}_ms" in line}
    assert told == {mark: round(time / 1e6, 3) for mark, time in stages.items()}
    assert line["total_ms"] == round(found.spans[name].duration / 1e6, 3)


@pytest.mark.parametrize("name", EVERY)
def test_the_caller_is_told_the_same_marks(name: str, found: Told) -> None:
    """Whoever is told `turn_finished` has each mark of the span up to the agent's report."""
    marks = dict(found.spans[name].events)
    timings = found.timings.get(name)
    if timings is None:
        assert ("finish" in marks) == (name == "permission")  # read by the client
    else:
        assert timings == {mark: at for mark, at in marks.items() if mark != "deliver"}


@pytest.mark.parametrize("name", EVERY)
def test_parts_lie_within_their_stages(name: str, found: Told) -> None:
    """No part takes longer than the stages in which it is measured, if the call lasts as long."""
    line, stages = found.lines[name], found.stages(name)
    outlives = ("commit",) if name == "loses its caller" else ()
    for part, marks in PARTS.items():
        if part in outlives:
            continue
        if f"{part}_ms" in line and (within := [stages[m] for m in marks if m in stages]):
            assert line[f"{part}_ms"] <= round(sum(within) / 1e6, 3), part


def test_histograms_have_each_stage_of_each_turn_once(found: Told) -> None:
    """Summed by stage and start mode, they are what the spans tell; so is the total."""
    times: Counter[tuple[str, ...]] = Counter()
    counts: Counter[tuple[str, ...]] = Counter()
    for name in EVERY:
        mode = found.lines[name]["start_mode"]
        for stage, time in found.stages(name).items():
            times[stage, mode] += time
            counts[stage, mode] += 1
        times["", mode] += found.spans[name].duration
    told: Counter[tuple[str, ...]] = Counter()
    for point in found.points:
        mode = point.labels.get("start_mode", "")
        if point.name == names.STAGE_DURATION:
            told[point.labels["stage"], mode] += round(point.value * 1e9)
            counts[point.labels["stage"], mode] -= point.count
        elif point.name == names.TURN_DURATION:
            told["", mode] += round(point.value * 1e9)
    assert not any(counts.values())
    assert told.keys() == times.keys()
    for key, time in times.items():
        assert told[key] == pytest.approx(time, abs=1000), key
