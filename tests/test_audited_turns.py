"""A turn waits for its lines in the audit log, on a clock that jumps and without any process."""

import asyncio

from stories import collect, fails, finished, story
from world import World, passes

from samovard.core.errors import NoProcess
from samovard.core.events import Outcome
from samovard.core.follower import Follower
from samovard.core.limits import Limits
from samovard.core.process import Prompt, Text
from samovard.core.records import SessionKey, Spec
from samovard.core.session import Sending
from samovard.telemetry.call import Call
from samovard.telemetry.observation import Observation


class Held:
    """An audit log that writes a line once the test lets it."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.begins: asyncio.Future[None] = loop.create_future()
        self.ends: asyncio.Future[None] = loop.create_future()
        self.told: list[str] = []

    def begin(self) -> asyncio.Future[None]:
        self.told.append("begin")
        return self.begins

    async def turn_ended(self, turn: Observation) -> None:
        self.told.append(turn.outcome or turn.cause)
        await self.ends


async def send(w: World, log: Held) -> Follower:
    call = Call.unwatched(asyncio.get_running_loop().time, 0.0)
    call.audited = log
    prompt = Prompt("turn", (Text(b"x"),))
    key = SessionKey("acme", "default")
    sending = Sending(key, prompt, b"x", Spec(), limits=Limits())
    return await w.sessions.begin(sending, call)


@story()
async def test_the_prompt_waits_for_the_line_that_allows_it(w: World) -> None:
    """While that is not written the agent is given nothing."""
    log = Held()
    log.ends.set_result(None)
    stream = await send(w, log)
    await passes(5)
    assert log.told == ["begin"]
    assert not w.stage.last.prompts
    log.begins.set_result(None)
    actor = await w.running()
    actor.finish()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED


@story()
async def test_the_last_event_waits_for_the_line_of_the_end(w: World) -> None:
    """It is told once the line is written, and there is one line."""
    log = Held()
    log.begins.set_result(None)
    stream = await send(w, log)
    told = asyncio.ensure_future(collect(stream))
    (await w.running()).finish()
    await passes(5)
    assert log.told == ["begin", "completed"]
    assert stream.turn.last_sequence == 1  # that it has started
    log.ends.set_result(None)
    assert finished(await told).outcome is Outcome.COMPLETED


@story()
async def test_a_turn_that_is_not_allowed_leaves_nothing(w: World) -> None:
    """Neither its session nor its prompt is made, and the next turn runs."""
    log = Held()
    log.ends.set_result(None)
    stream = await send(w, log)
    log.begins.set_exception(NoProcess("no", cause="audit-down", retry_after=1.0))
    assert (await fails(stream)).cause == "audit-down"
    assert not w.shelf.sessions
    assert not w.stage.last.prompts
    assert finished(await w.turn()).outcome is Outcome.COMPLETED
