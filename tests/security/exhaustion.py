"""Attacks by which one tenant takes what others need: places, processes, memory, lines of the
log.
"""

import asyncio
import contextlib
import threading
import uuid
from collections import Counter

import grpc
from fake_claude import fake, verbs
from support import http2
from support.http2 import Http2
from support.timeouts import BOUND

from samovar.v1 import session_pb2 as pb
from security.actors import OK, Answer, sending
from security.arena import ATTACKER, POOL, Arena
from security.catalog import attack
from security.identity import HEALTH, UNKNOWN
from security.transport import FULL, SEND, bare

HANG = fake(verbs.hang())
BIG = fake(verbs.events(4000, 1000))  # 4 MB
MIB = 1 << 20


async def begun(
    arena: Arena, sessions: int, tenant: str = ATTACKER
) -> list[asyncio.Future[Answer]]:
    """Begin hanging turns, each in a session of its own, until all run or wait."""
    caller = arena.caller(tenant)
    calls = [caller.begin("Send", sending(HANG, f"h{number}")) for number in range(sessions)]
    return [asyncio.ensure_future(caller.end(call)) for call in calls]


@attack("core.pool.queue.PoolLimits.tenant", "plain", without="tenant's queue")
async def a_tenant_that_queues_for_all(arena: Arena) -> None:
    """Past its own places it is refused, and another tenant's turn is the next to run."""
    limit = POOL["slots"] + 16
    ends = await begun(arena, limit + 4)
    refused = Counter[str]()
    for end in asyncio.as_completed(ends, timeout=arena.patience):
        refused[(await end).reason] += 1
        if refused.total() == 4:
            break
    assert refused == {"QUEUE_FULL": 4}, refused
    await served(arena)


async def served(arena: Arena) -> None:
    """Raise `AssertionError` unless the victim, whose process may be gone, is not refused."""
    turn = asyncio.create_task(arena.victim.turn())
    await asyncio.sleep(0)
    listed = await arena.attacker.call("ListSessions", pb.ListSessionsRequest(page_size=500))
    for info in pb.ListSessionsResponse.FromString(b"".join(listed.messages)).sessions:
        if turn.done():
            break
        request = pb.CloseSessionRequest(session_id=info.session_id)
        await arena.attacker.call("CloseSession", request)
    assert not (wrong := await turn), wrong


@attack("core.pool.queue.PoolLimits.reserve", "plain")
async def tenants_that_queue_together(arena: Arena) -> None:
    """The last places of the queue are kept for tenants that neither run nor wait."""
    ends = await begun(arena, POOL["slots"] + 15)
    ends += await begun(arena, 15, "crowd")
    for end in asyncio.as_completed(ends, timeout=arena.patience):
        assert (await end).reason in ("NO_PROCESS", "QUEUE_FULL")
        break
    await served(arena)


@attack("core.pool.queue.PoolLimits.slots", "plain", without="slots")
async def more_sessions_than_processes(arena: Arena) -> None:
    """Sessions by the dozen never have more processes than there are slots."""
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, (await arena.stats())["pool"])

    watching = asyncio.create_task(watch())
    count = arena.scale(12, 36)
    waves = [range(first, min(first + 12, count)) for first in range(0, count, 12)]
    for wave in waves:
        found = await asyncio.gather(*(arena.attacker.turn("Say x", f"s{n}") for n in wave))
        assert {answer.result for answer in found} == {"x"}, found
    watching.cancel()
    assert most <= POOL["slots"], most


@attack("edge.validate.page_size", "plain", without="page's size")
async def lists_without_end(arena: Arena) -> None:
    """A page has 500 sessions at most, whatever is asked for."""
    for size in (2**31 - 1, 501, -1, -(2**31)):
        asked = pb.ListSessionsRequest(page_size=size)
        answer = await arena.attacker.call("ListSessions", asked)
        assert (answer.reason == "REQUEST_INVALID") == (size < 0)
    asked = pb.ListSessionsRequest(page_size=500)
    for _ in range(arena.scale(1, 10)):
        await asyncio.gather(*(arena.attacker.call("ListSessions", asked) for _ in range(50)))
    assert (await arena.stats())["listed"] <= 500


@attack("edge.identity.ApiKeys._lookup", "plain", without="one at a time")
async def keys_that_do_not_exist_by_the_hundred(arena: Arena) -> None:
    """They are looked up one at a time, and known callers do not wait for them."""
    await arena.ask("reset")
    caller = arena.caller(shown=())
    keys = [f"Bearer samovar_{n:012}_{43 * 'x'}" for n in range(arena.scale(90, 900))]
    for first in range(0, len(keys), 90):
        part = [(("authorization", key),) for key in keys[first : first + 90]]
        calls = [caller.call("ListSessions", metadata=shown) for shown in part]
        turn = asyncio.create_task(arena.victim.served())
        found = await asyncio.gather(*calls)
        assert not (wrong := await turn), wrong
        assert {answer.code for answer in found} == {UNKNOWN}
    assert (await arena.stats())["asked"] <= 3


@attack("edge.gate._denying", "plain", "tls", without="denied unread")
async def large_messages_of_strangers(arena: Arena) -> None:
    """A message without a valid credential is refused unread, and takes no memory."""
    before = await arena.stats()
    calls = [arena.stranger.call("Send", bytes(8 * MIB)) for _ in range(arena.scale(12, 60))]
    assert {answer.code for answer in await asyncio.gather(*calls)} == {UNKNOWN}
    more = (await arena.stats())["peak"] - before["peak"]
    assert more < 64 * MIB, f"{more // MIB} MiB"


@attack("edge.validate._sendable", "plain", "tls", without="request's size")
async def prompts_that_are_too_large(arena: Arena) -> None:
    """A byte past 8 MiB is refused with a reason, and much more unread."""
    over = sending("x" * (8 * MIB))
    assert (await arena.attacker.call("Send", over)).reason == "REQUEST_INVALID"
    over = sending("x" * (9 * MIB))
    answer = await arena.attacker.call("Send", over)
    assert (answer.code, answer.reason) == (FULL, ""), answer


@attack("core.turn.follower.Follower._drop", "plain", "tls", without="slow readers")
async def a_reader_that_takes_nothing(arena: Arena) -> None:
    """Its stream is dropped, its turn interrupted, and what was kept for it is bounded."""
    before = await arena.stats()

    def story(client: Http2) -> None:
        message = sending(BIG, "slow", event_options=pb.EventOptions(partial=True))
        client.call(SEND, message.SerializeToString(), **arena.metadata())
        for _ in client.frames(0.2):
            pass
        stop.wait(arena.patience + 10)

    stop = threading.Event()
    reading = asyncio.create_task(bare(arena, story, window=0))
    try:
        await arena.until(lambda now: now["running"] == 1, "the turn did not begin")
        await arena.until(lambda now: now["running"] == 0, "the turn still runs")
        assert not (wrong := await arena.victim.served()), wrong
        assert (await arena.stats())["held"] < before["held"] + 8 * MIB
    finally:
        stop.set()
        await reading


@attack("core.pool.process_bounds.ProcessBounds", "plain", without="processes")
async def a_fork_bomb(arena: Arena) -> None:
    """It is killed with its whole tree, its turn is lost, and others are served meanwhile."""
    prompt = fake(verbs.swarm(arena.scale(300, 2000)), verbs.hang())
    spec = pb.SessionSpec(profile="few")
    turn = asyncio.create_task(arena.attacker.turn(prompt, "bomb", spec=spec))
    assert not (wrong := await arena.victim.served()), wrong
    answer = await turn
    assert (answer.reason, answer.cause) == ("TURN_LOST", "process-limit"), answer
    assert "tree.too_large" in arena.log()


@attack("core.turn.turn.Turn.follow", "plain", without="streams of a turn")
async def streams_of_one_turn_by_the_hundred(arena: Arena) -> None:
    """Past the bound of a turn they are refused with a reason; others are served."""
    turn = str(uuid.uuid4())
    async with arena.attacker.running(HANG, "a", turn_id=turn):
        callers = [arena.caller(ATTACKER) for _ in range(arena.scale(2, 13))]
        asked = pb.AttachRequest(session_id="a", turn_id=turn)
        ends = [
            asyncio.ensure_future(caller.end(caller.begin("Attach", asked)))
            for caller in callers
            for _ in range(95)
        ]
        bound = 32 - 1  # the first stream is the turn's own
        refused = Counter[str]()
        for end in asyncio.as_completed(ends, timeout=arena.patience):
            refused[(await end).cause] += 1
            if refused.total() >= len(ends) - bound:
                break
        # gRPC's own bound, which has no cause, is met for as long as a burst is not looked at.
        assert set(refused) <= {"calls", "streams", ""}, refused
        assert refused.total() > refused[""], refused
        assert not (wrong := await arena.victim.served()), wrong
        for caller in callers:
            await caller.close()
        await asyncio.gather(*ends, return_exceptions=True)


@attack("edge.gate.Gate", "plain", "tls", without="tenant's calls")
async def calls_of_headers_only(arena: Arena) -> None:
    """Twelve connections of them leave room for others."""
    each = 95

    def story(client: Http2) -> None:
        for _ in range(each):
            client.begin(SEND, **arena.metadata())
        client.send(http2.PING, 0, 0, bytes(8))
        next((f for f in client.frames(BOUND) if f.kind == http2.PING), None)

    async with contextlib.AsyncExitStack() as stack:
        dialled = [stack.enter_context(arena.http2()) for _ in range(12)]
        await asyncio.gather(*(asyncio.to_thread(story, client) for client in dialled))
        assert not (wrong := await arena.victim.served()), wrong


@attack("edge.gate.AtOnce", "plain", without="watchers")
async def probes_that_only_watch(arena: Arena) -> None:
    """Watchers of health leave room for probes that ask."""
    probes = f"unix:{arena.directory / 'health.sock'}"
    watchers = arena.caller(address=probes, shown=())
    calls = [watchers.begin(HEALTH + "Watch") for _ in range(90)]
    ends = [asyncio.ensure_future(watchers.end(call)) for call in calls]
    await asyncio.wait(ends, timeout=arena.patience, return_when="FIRST_COMPLETED")
    answer = await arena.caller(address=probes, shown=()).call(HEALTH + "Check")
    assert answer.code is OK, answer
    await watchers.close()
    await asyncio.gather(*ends, return_exceptions=True)


@attack("edge.validate._digest", "plain", without="content")
async def one_turns_id_for_many_requests(arena: Arena) -> None:
    """The same request runs once, however often it is sent; other content is refused."""
    turn, gate = str(uuid.uuid4()), arena.directory / f"gate{uuid.uuid4()}"
    same = sending(fake(verbs.gate(gate), verbs.history()), turn_id=turn)
    caller = arena.attacker
    calls = [caller.begin("Send", same) for _ in range(arena.scale(20, 90))]
    begun = await asyncio.gather(*(caller.first(call) for call in calls))
    gate.touch()
    pairs = zip(calls, begun, strict=True)
    found = await asyncio.gather(*(caller.end(call, first) for call, first in pairs))
    assert {answer.result.count("fake:") for answer in found} == {1}, found[0]
    other = await caller.turn("Say other", turn_id=turn)
    assert other.reason == "ID_TAKEN", other


@attack("core.sessions.sessions.Sessions._admit", "plain", without="session's queue")
async def one_session_with_many_turns(arena: Arena) -> None:
    """One runs, one waits, and the others are refused at once."""
    async with arena.attacker.running(HANG, "a"):
        calls = [arena.attacker.begin("Send", sending("Say x")) for _ in range(40)]
        ends = [asyncio.ensure_future(arena.attacker.end(call)) for call in calls]
        found = Counter[str]()
        for end in asyncio.as_completed(ends, timeout=arena.patience):
            found[(await end).reason] += 1
            if found.total() == 39:
                break
        assert found == {"SESSION_BUSY": 39}, found
        for call in calls:
            call.cancel()
        await asyncio.gather(*ends, return_exceptions=True)


@attack("core.sessions.turn_runner.TurnRunner.on_sender_left", "plain")
async def callers_that_leave_at_once(arena: Arena) -> None:
    """Turns whose callers have gone leave nothing behind: no waiter, no lease, no session."""
    for wave in range(arena.scale(2, 8)):
        calls = [arena.attacker.begin("Send", sending("Say x", f"w{wave}-{n}")) for n in range(20)]
        for _ in range(wave):  # the service gets further before they are left
            await arena.stats()
        for call in calls:
            call.cancel()
    await arena.until(lambda now: now["waiting"] == now["running"] == 0, "turns are left")


@attack("edge.status.Answering", "plain", "tls")
async def deadlines_that_are_over(arena: Arena) -> None:
    """A deadline that has passed, or that is of another century, ends its own call."""
    for seconds, code in ((0.0, grpc.StatusCode.DEADLINE_EXCEEDED), (1e9, OK)):
        request = sending("Say x", "d").SerializeToString()
        channel = arena.attacker.channel
        call = channel.unary_stream(SEND, None, None)(
            request, metadata=arena.attacker.shown, timeout=seconds
        )
        answer = await arena.attacker.end(call)
        assert answer.code is code, answer
