"""A turn waits for its lines in the audit log, on a clock that jumps and without any process."""

import asyncio
import json
from typing import Any

from support.core_runner import collect, fails, finished, story
from support.world import World, passes, turn_of

from samovard.audit.log import Line
from samovard.audit.trail import DONE, MAX_CONNECTIONS, SUMMED_EVERY, Trail, Writing
from samovard.core.errors import NoProcess
from samovard.core.events import Outcome
from samovard.core.process import Prompt, Text
from samovard.core.records import SessionKey, Spec
from samovard.core.sessions.conversation import TurnRequest
from samovard.core.turn.follower import Follower
from samovard.core.turn.limits import Limits
from samovard.telemetry.facts import Audited, CallFacts, TurnFacts


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

    def turn_ended(self, turn: TurnFacts) -> asyncio.Future[None]:
        if (ended := turn.outcome or turn.cause) not in self.told:
            self.told.append(ended)
        return self.ends


class Kept:
    """A log that keeps lines in memory, each at once."""

    down = False

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def write(self, line: bytes, undo: Line, *, rides: bool = False) -> Writing:
        return self.keep(line)

    def keep(self, line: bytes, *, rides: bool = False) -> Writing:
        self.lines.append(json.loads(line))
        return DONE

    def reopen(self) -> None:
        pass

    def ends(self) -> list[tuple[str, str, str]]:
        """Return the outcome, reason and cause of each end, in order."""
        ends = [line for line in self.lines if line["event"] == "end"]
        return [(line["outcome"], line["reason"], line["cause"]) for line in ends]


def audited(log: Kept) -> Audited:
    record = Trail(log, lambda: 0.0, "server", "1").call("samovar.v1.Session/Send")
    record.known("acme", "acme", "api_key", "id")
    return record


async def send(w: World, log: Audited) -> Follower:
    call = CallFacts.unwatched(asyncio.get_running_loop().time, 0.0)
    call.audited = log
    prompt = Prompt("turn", (Text(b"x"),))
    key = SessionKey("acme", "default")
    sending = TurnRequest(key, prompt, b"x", Spec(), limits=Limits())
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
    assert turn_of(stream).last_sequence == 1  # that it has started
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


@story()
async def test_the_line_of_the_end_is_written_while_the_store_is(w: World) -> None:
    """Its caller waits for the slower of the two, and not for one after the other."""
    log = Held()
    log.begins.set_result(None)
    stream = await send(w, log)
    told = asyncio.ensure_future(collect(stream))
    actor = await w.running()
    w.shelf.slow = 5.0
    actor.finish()
    await passes(1)
    assert log.told == ["begin", "completed"]
    log.ends.set_result(None)
    await passes(1)
    assert turn_of(stream).last_sequence == 1
    assert finished(await told).outcome is Outcome.COMPLETED


@story()
async def test_a_turn_has_one_end(w: World) -> None:
    """However often it is asked for it."""
    log = Kept()
    stream = await send(w, audited(log))
    (await w.running()).finish()
    await collect(stream)
    assert log.ends() == [("completed", "", "")]


@story()
async def test_a_turn_whose_outcome_is_not_stored_has_a_second_end(w: World) -> None:
    """The first says what the agent reported, the second what its caller was told."""
    log = Kept()
    stream = await send(w, audited(log))
    actor = await w.running()
    w.shelf.down = True
    actor.finish()
    assert (await fails(stream)).cause == "store-down"
    assert log.ends() == [("completed", "", ""), ("lost", "TURN_LOST", "store-down")]
    w.shelf.down = False


def connection(session: str = "s") -> dict[str, Any]:
    fields = {"tenant": "acme", "profile": "p", "session": session, "host": "h.example"}
    return fields | {"port": 443, "sent": 1, "received": 2, "verdict": "passed"}


def test_connections_of_tools_do_not_fill_the_disk() -> None:
    """A session has so many lines in a minute; the others are counted, and others' are written."""
    log, times = Kept(), [1000.0]
    trail = Trail(log, lambda: times[0], "s", "0")
    for _ in range(MAX_CONNECTIONS + 5):
        trail.connected(connection())
    trail.connected(connection("other"))
    assert [line["session"] for line in log.lines] == ["s"] * MAX_CONNECTIONS + ["other"]
    assert log.lines[0] == connection() | {"event": "connection", "untold": 0} | {
        "time": "1970-01-01T00:16:40Z"
    }
    times[0] += SUMMED_EVERY
    trail.connected(connection())
    assert [line["untold"] for line in log.lines[-2:]] == [5, 0]
    assert log.lines[-2]["session"] == "s"
    trail.close()
    assert [line["event"] for line in log.lines[-2:]] == ["connection", "stopped"]


def test_connections_are_counted_while_the_log_is_down() -> None:
    """And told once it is not, so that none waits in memory."""
    log = Kept()
    trail = Trail(log, lambda: 1000.0, "s", "0")
    log.down = True
    trail.connected(connection())
    assert not log.lines
    log.down = False
    trail.close()
    assert [line.get("untold") for line in log.lines] == [1, None]
