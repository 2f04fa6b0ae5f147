"""One session that races: a turn, its interrupt and the next turn, again and again.

Knows the wire through a stub. The promises are checked here, stream by stream.
"""

import asyncio
import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from races.tally import Tally
from samovar.v1 import session_pb2 as pb

DEADLINE = 60.0
PIECES = (2, 10, 40)  # words of a turn that is stopped, if it gets that far
INTERRUPTED = pb.TurnFinished.OUTCOME_INTERRUPTED
COMPLETED = pb.TurnFinished.OUTCOME_COMPLETED
#: How a turn is stopped: is its call cancelled, and how often is it interrupted?
WAYS = ((False, 1), (False, 2), (True, 0), (True, 1))
MOMENTS = ("at once", "started", "speaking")


@dataclass(frozen=True)
class Agent:
    """The prompts that make an agent say so many words of a canary, or the canary alone.

    `word` is how the agent says a word of that number.
    """

    long: Callable[[str, int], str]
    short: Callable[[str], str]
    word: Callable[[str, int], str]


@dataclass
class Stream:
    """One turn as its caller sees it; `said` is the agent's whole answer."""

    said: str
    turn_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    text: str = ""
    started: Any = None
    finished: Any = None
    code: grpc.StatusCode | None = None
    speaks: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)


class Racer:
    """A session of a tenant, whose `key` it has."""

    def __init__(
        self,
        stub: Any,
        name: tuple[str, str],
        key: str,
        agent: Agent,
        draw: random.Random,
        tally: Tally,
    ) -> None:
        self._stub = stub
        self._session = name[1]
        self._name = "/".join(name)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._agent = agent
        self._draw = draw
        self._counters = tally
        self._process = ""

    async def warm(self) -> None:
        """Run a first turn, so that the session has its process."""
        await self._next(f"{self._name}/warm")

    async def race(self, number: int) -> None:
        """Begin a turn, stop it and send the next one, at moments of its own choice."""
        canary = f"{self._name}/{number}"
        pieces = self._draw.choice(PIECES)
        first = Stream("".join(self._agent.word(f"{canary}/", piece) for piece in range(pieces)))
        call = self._send(first, self._agent.long(f"{canary}/", pieces))
        reading = asyncio.create_task(self._read(call, first))
        cancels, interrupts = self._draw.choice(WAYS)
        await self._wait(first, reading, self._draw.choice(MOMENTS))
        await self._pause()
        if cancels:
            call.cancel()
        stopping = [self._interrupt(first.turn_id) for _ in range(interrupts)]
        if self._draw.random() < 0.5:
            stopping.append(self._interrupt(first.turn_id, self._draw.uniform(0.0, 0.03)))
        async with asyncio.TaskGroup() as group:
            for call in stopping:
                group.create_task(call)
            await self._pause()
            await self._next(f"{canary}/next")
        await reading
        self._judge(first, cancelled=cancels)
        self._counters.count("races")

    async def _wait(self, stream: Stream, reading: "asyncio.Task[None]", moment: str) -> None:
        event = {"started": stream.begun, "speaking": stream.speaks}.get(moment)
        if event is not None:
            waiting = asyncio.create_task(event.wait())
            await asyncio.wait({waiting, reading}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def _pause(self) -> None:
        if self._draw.random() < 0.6:
            await asyncio.sleep(self._draw.expovariate(1 / 0.003))

    async def _interrupt(self, turn_id: str, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        request = pb.InterruptRequest(session_id=self._session, turn_id=turn_id)
        try:
            await self._stub.Interrupt(request, metadata=self._metadata, timeout=DEADLINE)
        except grpc.aio.AioRpcError as error:
            # A turn that was withdrawn, or is not there yet, has left no trace.
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise

    async def _next(self, canary: str) -> None:
        """Run a turn that must be answered with its canary, whole and alone."""
        stream = Stream(canary)
        await self._read(self._send(stream, self._agent.short(canary)), stream)
        said = (stream.text, stream.finished.result if stream.finished else stream.code)
        if said != (canary, canary):
            self._counters.count("wrong_answers", f"{said} instead of {canary}")
        elif stream.finished.outcome != COMPLETED:
            self._counters.count("wrong_outcomes", f"{canary}: {stream.finished.outcome}")
        self._judge(stream, cancelled=False)

    def _send(self, stream: Stream, prompt: str) -> Any:
        request = pb.SendRequest(
            session_id=self._session,
            turn_id=stream.turn_id,
            content=[pb.Content(text=prompt)],
            spec=pb.SessionSpec(),
            event_options=pb.EventOptions(partial=True),
        )
        return self._stub.Send(request, metadata=self._metadata, timeout=DEADLINE)

    async def _read(self, call: Any, stream: Stream) -> None:
        sequence = 0
        try:
            async for response in call:
                for event in response.events:
                    sequence += 1
                    self._counters.count("events")
                    if event.sequence != sequence:
                        self._counters.count("gaps", f"{stream.said[:80]}: {event.sequence}")
                    self._take(event, stream)
        except (grpc.aio.AioRpcError, asyncio.CancelledError):
            pass
        stream.code = await call.code()

    def _take(self, event: Any, stream: Stream) -> None:
        """Add an event to its stream; count every event that belongs to another."""
        ours = stream.finished is None
        kind = event.WhichOneof("kind")
        if kind == "turn_started":
            stream.started = event.turn_started
            stream.begun.set()
            ours = ours and event.turn_started.turn_id == stream.turn_id
        elif kind == "text_delta":
            stream.text += event.text_delta.text
            stream.speaks.set()
            ours = ours and stream.said.startswith(stream.text)
        elif kind == "turn_finished":
            stream.finished = event.turn_finished
            ours = ours and stream.said.startswith(stream.finished.result)
        if not ours:
            self._counters.count("foreign_events", f"{stream.said[:80]}: {str(event)[:200]}")

    def _judge(self, stream: Stream, *, cancelled: bool) -> None:
        """Count how a stream ended, and whether its process is the one that the session had."""
        ok = stream.code is grpc.StatusCode.OK
        told = f"{stream.said[:80]}: {stream.code}"
        if not cancelled and ok is (stream.finished is None):
            self._counters.count("streams_without_one_end", told)
        if cancelled and not ok:
            self._counters.count("cancelled")
        elif stream.started is None:
            withdrawn = stream.code is grpc.StatusCode.CANCELLED
            self._counters.count("withdrawn" if withdrawn else "wrong_outcomes", told)
        elif stream.finished is None:
            self._counters.count("wrong_outcomes", told)
        else:
            outcome = stream.finished.outcome
            names = {INTERRUPTED: "interrupted", COMPLETED: "completed"}
            self._counters.count(names.get(outcome, "wrong_outcomes"), f"{told} {outcome}")
        if stream.started is not None:
            self._counters.count("turns")
            if self._process not in ("", stream.started.process_id):
                self._counters.count("processes_lost", told)
            self._process = stream.started.process_id
