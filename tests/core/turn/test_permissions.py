"""Permission requests, on a clock that jumps and without any process."""

from typing import Any

import pytest
from support.core_runner import collect, fails, finished, story
from support.noted import EPOCH
from support.world import Actor, World, passes, turn_of, until

from samovard.core.errors import (
    PermissionNotFound,
    RequestInvalid,
    SamovarError,
    SessionNotFound,
    TurnLost,
)
from samovard.core.events import (
    Event,
    Outcome,
    PermissionRequested,
    PermissionResolved,
    Resolution,
    TextDelta,
)
from samovard.core.process import Allow, Deny, PermissionDecision
from samovard.core.records import PermissionPolicy, SessionKey, Spec
from samovard.core.sessions.conversation import SessionRules
from samovard.core.sessions.session import SessionState
from samovard.core.turn.follower import Follower
from samovard.core.turn.turn import Disconnect
from samovard.core.turn.watchdog import Patience

KEY = SessionKey("acme", "default")
ASKS = SessionRules(ask=True, allow_rewrite=True, permission_timeout=60.0)


@story(profile=ASKS)
async def test_permissions_say_how_many_are_open(w: World) -> None:
    """And that there will be no more."""
    stream, actor = await asking(w, "a", "b", turn_id="t")
    await passes(1)
    permissions = turn_of(stream).permissions
    assert repr(permissions) == "<Permissions open=2 answered=0>"
    actor.answer()
    await collect(stream)
    assert repr(permissions).startswith("<Permissions closed ")


async def asking(w: World, *request_ids: str, **where: Any) -> tuple[Follower, Actor]:
    """Begins a turn whose agent asks for permission."""
    stream = await w.send(**where)
    actor = await w.running()
    actor.ask(*request_ids or ("r",))
    return stream, actor


def requests(stream: Follower) -> list[PermissionRequested]:
    return [e for e in events(stream) if isinstance(e, PermissionRequested)]


def resolutions(stream: Follower) -> list[tuple[str, Resolution]]:
    return [
        (e.permission_id, e.resolution) for e in events(stream) if isinstance(e, PermissionResolved)
    ]


def events(stream: Follower) -> list[Event]:
    batches = turn_of(stream).event_log.take(0, 1 << 30) or []
    return [event for batch in batches for event in batch.events]


async def refused(w: World, permission_id: str, decision: PermissionDecision) -> SamovarError:
    with pytest.raises(SamovarError) as caught:
        await w.sessions.respond(KEY, permission_id, decision)
    return caught.value


@story(profile=ASKS)
async def test_an_answer_reaches_the_agent_by_its_own_name(w: World) -> None:
    """The agent is told its own name of the request, callers another one."""
    stream, actor = await asking(w)
    (asked,) = requests(stream)
    assert asked.permission_id != "r"
    assert asked.expire_time == pytest.approx(turn_of(stream).stages.wall_now() + 60)
    assert asked.expire_time > EPOCH
    await w.sessions.respond(KEY, asked.permission_id, Allow())
    assert actor.decisions == [("r", Allow())]
    assert resolutions(stream) == [(asked.permission_id, Resolution.ALLOWED)]
    actor.answer()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED


@story(profile=ASKS)
async def test_an_equal_answer_is_told_once(w: World) -> None:
    """A repeated answer succeeds and does nothing; another one has nothing to answer."""
    stream, actor = await asking(w)
    (asked,) = requests(stream)
    for _ in range(2):
        await w.sessions.respond(KEY, asked.permission_id, Deny("no"))
    for other in (Deny("never"), Deny("no", interrupt=True), Allow(), Allow('{"a":1}')):
        assert isinstance(await refused(w, asked.permission_id, other), PermissionNotFound)
    assert actor.decisions == [("r", Deny("no"))]
    assert len(resolutions(stream)) == 1
    actor.answer()
    await collect(stream)
    assert isinstance(await refused(w, asked.permission_id, Deny("no")), PermissionNotFound)


@story(profile=ASKS)
async def test_a_denial_that_interrupts_ends_the_turn(w: World) -> None:
    """The agent is told the denial and then to stop: alone it would end a sub-agent only."""
    stream, actor = await asking(w, "r", "other")
    first, second = requests(stream)
    answer = Deny("no", interrupt=True)
    await w.sessions.respond(KEY, first.permission_id, answer)
    assert actor.decisions == [("r", answer)]
    assert len(actor.proofs) == 1
    assert resolutions(stream) == [
        (first.permission_id, Resolution.DENIED),
        (second.permission_id, Resolution.WITHDRAWN),
    ]
    await w.sessions.respond(KEY, first.permission_id, answer)
    assert len(actor.proofs) == 1
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(stream)).outcome is Outcome.INTERRUPTED


@story(profile=ASKS)
async def test_an_unanswered_request_is_denied_in_time(w: World) -> None:
    """After the profile's time the tool is denied, the turn goes on, an answer is too late."""
    stream, actor = await asking(w)
    (asked,) = requests(stream)
    await passes(59.9)
    assert actor.decisions == []
    await passes(0.2)
    ((name, decision),) = actor.decisions
    assert name == "r"
    assert isinstance(decision, Deny)
    assert not decision.interrupt
    assert resolutions(stream) == [(asked.permission_id, Resolution.EXPIRED)]
    assert isinstance(await refused(w, asked.permission_id, Allow()), PermissionNotFound)
    assert len(actor.decisions) == 1
    actor.answer()
    assert finished(await collect(stream)).outcome is Outcome.COMPLETED


@story(profile=ASKS)
async def test_what_the_agent_withdraws_is_over(w: World) -> None:
    """A request that the agent no longer asks is withdrawn; what it never asked is nothing."""
    stream, actor = await asking(w, "r", "s")
    first, second = requests(stream)
    actor.unask("s", "unknown")
    assert resolutions(stream) == [(second.permission_id, Resolution.WITHDRAWN)]
    assert isinstance(await refused(w, second.permission_id, Allow()), PermissionNotFound)
    await w.sessions.respond(KEY, first.permission_id, Allow())
    actor.unask("r")
    assert len(resolutions(stream)) == 2
    assert actor.decisions == [("r", Allow())]
    actor.answer()
    await collect(stream)


@story(profile=ASKS)
async def test_an_interrupt_withdraws_what_is_open(w: World) -> None:
    """From the interrupt on nothing can be answered, and what is asked then is denied
    without being shown."""
    stream, actor = await asking(w)
    (asked,) = requests(stream)
    await w.sessions.interrupt(KEY, turn_of(stream).turn_id)
    assert resolutions(stream) == [(asked.permission_id, Resolution.WITHDRAWN)]
    assert isinstance(await refused(w, asked.permission_id, Allow()), PermissionNotFound)
    actor.unask("r")
    actor.ask("late")
    assert actor.decisions == [("late", Deny())]
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    told = await collect(stream)
    assert len([e for e in told if isinstance(e, PermissionRequested)]) == 1
    assert isinstance(told[-2], PermissionResolved)


@story(profile=ASKS)
async def test_the_wait_counts_towards_the_turn_s_limit(w: World) -> None:
    """A turn whose time is over while it waits ends as a limit that was reached."""
    stream, actor = await asking(w, timeout=10.0)
    await passes(9.9)
    assert not actor.proofs
    await passes(0.2)
    (asked,) = requests(stream)
    assert resolutions(stream) == [(asked.permission_id, Resolution.WITHDRAWN)]
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    assert finished(await collect(stream)).outcome is Outcome.LIMIT_REACHED


@story(profile=ASKS)
async def test_every_request_is_resolved_before_the_end(w: World) -> None:
    """A turn that ends while it asks tells so first; a lost one, too."""
    stream, actor = await asking(w)
    actor.answer()
    told = await collect(stream)
    assert [type(event) for event in told[-2:]] == [PermissionResolved, type(finished(told))]
    stream = await w.send()
    await w.running(prompts=2)
    actor.ask("r")
    actor.die()
    (asked,) = requests(stream)
    assert resolutions(stream) == [(asked.permission_id, Resolution.WITHDRAWN)]
    assert isinstance(await refused(w, asked.permission_id, Allow()), PermissionNotFound)
    with pytest.raises(TurnLost):
        await collect(stream)


@story(profile=ASKS)
async def test_several_are_answered_in_any_order(w: World) -> None:
    """Requests that are open at once have answers of their own."""
    stream, actor = await asking(w, "a", "b", "c")
    actor.ask("b")  # said twice, asked once
    a, b, c = (asked.permission_id for asked in requests(stream))
    await w.sessions.respond(KEY, b, Deny("no"))
    await w.sessions.respond(KEY, c, Allow('{"x":1}'))
    await w.sessions.respond(KEY, a, Allow())
    assert actor.decisions == [("b", Deny("no")), ("c", Allow('{"x":1}')), ("a", Allow())]
    actor.answer()
    await collect(stream)


@story(profile=ASKS)
async def test_a_request_stands_where_it_was_made(w: World) -> None:
    """Among what was read at once, requests and withdrawals keep their places."""
    stream = await w.send()
    actor = await w.running()
    withdrawn = PermissionResolved("r", Resolution.WITHDRAWN)
    asked = PermissionRequested("r", "u", "Write", "{}")
    said = [TextDelta("m", 0, "a"), asked, TextDelta("m", 1, "b"), withdrawn]
    actor.listener.on_events(said, 10)
    assert [type(event) for event in events(stream)[1:]] == [type(event) for event in said]
    actor.answer()
    await collect(stream)


@story(profile=ASKS)
async def test_a_session_that_is_asked_says_so(w: World) -> None:
    """It is INPUT_REQUIRED while a request is open, for one look and in lists."""
    stream, actor = await asking(w)

    async def states() -> set[SessionState]:
        listed = await w.sessions.list("acme", None, 10)
        return {(await w.sessions.get(KEY)).state, *(info.state for info in listed)}

    assert await states() == {SessionState.INPUT_REQUIRED}
    await w.sessions.respond(KEY, requests(stream)[0].permission_id, Allow())
    assert await states() == {SessionState.RUNNING}
    actor.answer()
    await collect(stream)


@story(profile=ASKS)
async def test_the_wait_is_the_time_in_which_any_was_open(w: World) -> None:
    """Requests that overlap are counted once, and a turn that never asked has no such time."""
    stream, actor = await asking(w, "a", "b")
    assert turn_of(stream).permissions.open
    a, b = (asked.permission_id for asked in requests(stream))
    await passes(5)
    await w.sessions.respond(KEY, a, Allow())
    await passes(5)
    assert turn_of(stream).permissions.waited == 10 * 10**9
    await w.sessions.respond(KEY, b, Allow())
    assert not turn_of(stream).permissions.open
    await passes(5)
    actor.ask("c")
    await passes(5)
    actor.answer()
    assert finished(await collect(stream)).timings.permission_wait == pytest.approx(15e9)
    assert finished(await w.turn()).timings.permission_wait is None


@story(profile=SessionRules(ask=True, permission_timeout=600.0, patience=Patience(5, 5, 5, 5)))
async def test_a_turn_that_waits_for_an_answer_is_not_stalled(w: World) -> None:
    """While a request is open no other time counts; from its end on the agent has its own."""
    stream, actor = await asking(w, "a", "b")
    await passes(300)
    await w.sessions.respond(KEY, requests(stream)[0].permission_id, Allow())
    await passes(299)
    assert not actor.stopped
    await w.sessions.respond(KEY, requests(stream)[1].permission_id, Allow())
    await passes(4)
    assert not actor.stopped
    assert (await fails(stream)).cause == "stalled"


@story(profile=SessionRules(ask=True))
async def test_input_is_changed_only_where_the_profile_allows_it(w: World) -> None:
    """Without `allow_rewrite` a changed input is invalid, for a request that is open or not."""
    stream, actor = await asking(w)
    for permission_id in (requests(stream)[0].permission_id, "unknown"):
        error = await refused(w, permission_id, Allow('{"a":1}'))
        assert isinstance(error, RequestInvalid)
        assert error.violations[0][0] == "allow.updated_input_json"
    assert actor.decisions == []
    actor.answer()
    await collect(stream)


@story(profile=ASKS)
async def test_nobody_answers_for_another(w: World) -> None:
    """Another tenant's request is none, and neither is one of another session."""
    stream, actor = await asking(w)
    (asked,) = requests(stream)
    other = await w.send(session="other", tenant="acme")
    await until(lambda: len(w.stage.starts) == 2)
    theirs = SessionKey("globex", "default")
    with pytest.raises(SessionNotFound):
        await w.sessions.respond(theirs, asked.permission_id, Allow())
    with pytest.raises(PermissionNotFound):
        await w.sessions.respond(SessionKey("acme", "other"), asked.permission_id, Allow())
    assert isinstance(await refused(w, "unknown", Allow()), PermissionNotFound)
    assert actor.decisions == []
    actor.answer()
    await collect(stream)
    async with other:
        pass


@pytest.mark.parametrize("policy", [0, 1, 2])
@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("may", [False, True])
def test_who_asks(policy: int, asks: bool, may: bool) -> None:
    """A session's own policy decides, as far as the profile lets it, else the profile's."""
    allowed = policy != 2 or asks or may

    @story(profile=SessionRules(ask=asks, allow_ask=may))
    async def told(w: World) -> None:
        spec = Spec(permission_policy=PermissionPolicy(policy))
        if not allowed:
            with pytest.raises(RequestInvalid):
                await w.send(spec=spec)
            return
        await w.turn(spec=spec)
        assert w.stage.last.launch.ask is (policy == 2 or (policy == 0 and asks))

    told()


@story(profile=ASKS)
async def test_a_turn_that_goes_on_alone_can_be_answered(w: World) -> None:
    """A turn whose caller has left waits for whoever answers."""
    stream, actor = await asking(w, on_disconnect=Disconnect.CONTINUE)
    async with stream:
        pass
    (asked,) = requests(stream)
    await w.sessions.respond(KEY, asked.permission_id, Allow())
    assert actor.decisions == [("r", Allow())]
    actor.answer()
    await w.settled()


@story(profile=ASKS)
async def test_a_lost_stream_withdraws_what_it_was_asked(w: World) -> None:
    """A caller who leaves interrupts the turn, and with it what it was asked."""
    stream, actor = await asking(w)
    async with stream:
        pass
    (asked,) = requests(stream)
    assert resolutions(stream) == [(asked.permission_id, Resolution.WITHDRAWN)]
    actor.finish(outcome=Outcome.INTERRUPTED)
    actor.proofs[0].set_result(True)
    await w.settled()
