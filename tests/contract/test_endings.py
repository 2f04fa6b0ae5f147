"""How streams end, whatever becomes of their turns: on the fake agent, over a real channel."""

import asyncio
import os
import signal
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from google.rpc import error_details_pb2, status_pb2
from structlog.testing import capture_logs
from support.service import Running, serving, simple, until

import samovar
from samovar.v1 import session_pb2 as pb
from samovard import app
from samovard.agent import process
from samovard.core.sessions.conversation import Clocks
from samovard.edge.status import CODES

#: What an agent does, and the reason that the call ends with, or how the turn ended.
ENDINGS = {
    "answers": ([v.text("x")], "OUTCOME_COMPLETED"),
    "fails upstream": ([v.api_error(529)], "OUTCOME_FAILED"),
    "asks and is denied": ([v.permission(), v.text("x")], "OUTCOME_COMPLETED"),
    "has nothing to say": ([], "OUTCOME_COMPLETED"),
    "is interrupted": ([v.hang()], "OUTCOME_INTERRUPTED"),
    "takes too long": ([v.drip(500, ms=20)], "OUTCOME_LIMIT_REACHED"),
    "reports twice": ([v.text("x"), v.double_result()], "OUTCOME_COMPLETED"),
    "never ends": ([v.text("x"), v.no_end()], "OUTCOME_COMPLETED"),
    "dies": ([v.text("x"), v.die("mid_text", signal=9)], "TURN_LOST"),
    "dies with its report": ([v.text("x"), v.die("after_result")], "OUTCOME_COMPLETED"),
    "breaks its line": ([v.text("x"), v.partial_line("exit")], "TURN_LOST"),
    "says too much at once": ([v.huge_line(300_000)], "TURN_LOST"),
    "talks rubbish": ([v.bad_utf8()], "INTERNAL"),
    "tells of another session": ([v.wrong_session_id()], "INTERNAL"),
}


class Told:
    """Everything that a caller of `Send` was told."""

    def __init__(self) -> None:
        self.events: list[pb.Event] = []
        self.error: grpc.aio.AioRpcError | None = None

    @property
    def ending(self) -> str:
        """The outcome of a call that ended with OK, else its reason."""
        if self.error is None:
            finished = self.events[-1].turn_finished
            return str(pb.TurnFinished.Outcome.Name(finished.outcome))
        return str(self.detail(error_details_pb2.ErrorInfo)[0].reason)

    def detail(self, kind: Any) -> list[Any]:
        assert self.error is not None
        trailing: Any = self.error.trailing_metadata()
        status = status_pb2.Status.FromString(dict(trailing)["grpc-status-details-bin"])
        found = []
        for packed in status.details:
            if packed.Is(kind.DESCRIPTOR):
                found.append(kind())
                packed.Unpack(found[-1])
        return found

    def check(self) -> None:
        """OK if and only if `turn_finished` came, once and last; else a status that is whole."""
        kinds = [event.WhichOneof("kind") for event in self.events]
        assert [event.sequence for event in self.events] == list(range(1, len(kinds) + 1))
        assert kinds.count("turn_started") == (kinds[:1] == ["turn_started"])
        if self.error is None:
            assert kinds.index("turn_finished") == len(kinds) - 1
            return
        assert "turn_finished" not in kinds
        (info,) = self.detail(error_details_pb2.ErrorInfo)
        assert (info.domain, CODES[info.reason]) == ("samovar", self.error.code())
        began = "turn_started" in kinds
        assert info.metadata.get("promptWritten", "") == ("true" if began else "")
        assert began == (info.reason in ("TURN_LOST", "INTERNAL"))
        assert not (began and self.detail(error_details_pb2.RetryInfo))
        trailing: Any = self.error.trailing_metadata()
        pushback = int(dict(trailing).get("grpc-retry-pushback-ms", -1))
        assert not 0 <= pushback < 100


async def told(run: Running, name: str) -> Told:
    """Sends what makes the agent do so, in a session of its own."""
    verbs, ending = ENDINGS[name]
    turn_id, heard = str(uuid.uuid4()), Told()
    request = simple(fake(*verbs), session_id=name.replace(" ", "-"), spec=pb.SessionSpec())
    request.turn_id = turn_id
    if ending == "OUTCOME_LIMIT_REACHED":
        request.limits.turn_timeout.FromMilliseconds(300)
    try:
        async for response in run.stub.Send(request):
            assert response.events
            heard.events += response.events
            if ending == "OUTCOME_INTERRUPTED":
                named = pb.InterruptRequest(session_id=request.session_id, turn_id=turn_id)
                await run.stub.Interrupt(named)
    except grpc.aio.AioRpcError as error:
        heard.error = error
    return heard


def test_a_stream_is_ok_exactly_when_turn_finished_came_last(directory: Path) -> None:
    """However a turn ends, its stream has one end, and the status says whether it was told."""

    async def story() -> None:
        agent, pool = {"max_line_bytes": 200_000}, {"slots": len(ENDINGS)}
        async with serving(directory, fake=True, agent=agent, pool=pool) as run:
            heard = await asyncio.gather(*(told(run, name) for name in ENDINGS))
            assert {name: one.ending for name, one in zip(ENDINGS, heard, strict=True)} == {
                name: ending for name, (_, ending) in ENDINGS.items()
            }
            for one in heard:
                one.check()

    asyncio.run(story())


def test_a_death_is_told_when_it_happens(directory: Path) -> None:
    """Neither the end of its output, which a tool's program holds open, nor any of the turn's
    limits is waited for."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            held = v.grandchild(holds_stdout=True, setsid=True)
            with pytest.raises(samovar.TurnLost) as lost:
                async with run.client.send(fake(held, v.text("x"), v.hang())) as turn:
                    async for event in turn:
                        if isinstance(event, samovar.TurnStarted):
                            pid = event.pid
                        elif isinstance(event, samovar.AgentInfo):
                            os.kill(pid, signal.SIGKILL)
            assert lost.value.cause == "process-died"

    asyncio.run(story())


def test_how_a_turn_was_lost_outlives_the_server(directory: Path) -> None:
    """After a restart the same turn ends as it did, for `Send` and `Attach`, and is not run."""
    turn_id, prompt = str(uuid.uuid4()), fake(v.text("x"), v.die("mid_text"))

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            with pytest.raises(samovar.TurnLost) as first:
                await run.client.ask(prompt, turn_id=turn_id)
        async with serving(directory, fake=True) as run:
            for again in (
                run.client.ask(prompt, turn_id=turn_id),
                _attached(run, turn_id),
            ):
                with pytest.raises(samovar.TurnLost) as later:
                    await again
                assert later.value.cause == first.value.cause == "process-died"
                assert later.value.prompt_written
            assert len(run.service.pool) == 0

    asyncio.run(story())


def test_a_lost_turn_counts_what_is_known_of_its_usage(directory: Path) -> None:
    """What the model's API said of the messages that it began is the session's usage, too, and
    its line in the log says that it is an estimate."""

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            await run.client.ask("Say x")
            before = (await run.client.get_session()).usage
            with capture_logs() as lines:
                with pytest.raises(samovar.TurnLost):
                    await run.client.ask(fake(v.text("x"), v.die("mid_text")))
                await until(lambda: any(line["event"] == "turn.finished" for line in lines))
            after = (await run.client.get_session()).usage
            assert (before.input_tokens, before.output_tokens) == (10, 12)
            assert (after.input_tokens, after.output_tokens) == (20, 13)
            (told,) = (line for line in lines if line["event"] == "turn.finished")
            assert (told["input_tokens"], told["output_tokens"]) == (10, 1)
            assert told["estimated"]

    asyncio.run(story())


async def _attached(run: Running, turn_id: str) -> None:
    async with run.client.attach(turn_id) as turn:
        async for _ in turn:
            pass


def test_a_line_without_a_name_is_told(directory: Path) -> None:
    """What the service has no name for is an event of its own, in its place."""
    strange = v.line("novelty", subtype="of-tomorrow", secret=1)

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            prompt = fake(v.text("before"), strange, v.text("behind"))
            async with run.client.send(prompt, partial=True) as turn:
                events = [event async for event in turn]
            kinds = [type(event) for event in events]
            (told,) = (event for event in events if isinstance(event, samovar.Unrecognized))
            assert (told.type, told.subtype) == ("novelty", "of-tomorrow")
            assert kinds.index(samovar.TextDelta) < events.index(told) < len(events) - 1

    asyncio.run(story())


def test_a_prompt_of_which_nothing_is_taken_is_given_to_another(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that took no byte of it is replaced once, and the caller sees nothing of it."""
    monkeypatch.setattr(process, "WRITE_TIMEOUT", 2.0)

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            deaf = (await run.client.ask(fake(v.text("x"), v.no_read_stdin()))).started
            (found,) = run.service.pool
            await until(lambda: found.state.value == "idle")
            for _ in range(1000):  # its pipe is full, and no question is answered
                found.handle._ask_cost()  # type: ignore[attr-defined]
            answer = await run.client.ask("Say on")
            assert answer.text == "on"
            assert answer.started.process_id != deaf.process_id
            assert (await run.client.get_session()).turn_count == 2

    asyncio.run(story())


def test_a_wall_clock_that_jumps_changes_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour forth or back: the process is kept, nothing expires, and stages do not decrease."""
    hours = [0]
    clocks = Clocks(lambda: time.time() + hours[0] * 3600, time.monotonic)
    monkeypatch.setattr(app, "CLOCKS", clocks)

    async def story() -> None:
        async with serving(directory, fake=True) as run:
            first = (await run.client.ask("Say x")).started
            for hours[0] in (1, -1):
                async with run.client.send(fake(v.drip(3, ms=20))) as turn:
                    events = [event async for event in turn]
                assert isinstance(events[0], samovar.TurnStarted)
                assert events[0].process_id == first.process_id
                assert isinstance(events[-1], samovar.TurnFinished)
                timings = events[-1].timings
                stages = [n for n in timings.__dataclass_fields__ if n != "permission_wait"]
                times = [getattr(timings, stage) for stage in stages]
                assert times == sorted(times)

    asyncio.run(story())
