"""A tenant that knows another's ids: of its session, its turn, and what it is asked."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fake_claude import fake, verbs
from google.protobuf.message import Message

from samovar.v1 import session_pb2 as pb
from security.actors import OK, Answer, Caller, sending
from security.arena import VICTIM, Arena
from security.catalog import attack

ELSEWHERE = "00000000-0000-4000-8000-000000000000"
ASK = pb.SessionSpec(profile="ask")


@dataclass
class Open:
    """A turn that waits for an answer."""

    session: str
    turn: str
    permission: str


@asynccontextmanager
async def held(caller: Caller, name: str, said: str) -> AsyncIterator[tuple[Open, Any]]:
    """Hold a turn that says something once it is answered. Yield its ids, and what ends it."""
    script = fake(verbs.permission(), verbs.text(said))
    call = caller.begin("Send", sending(script, name, spec=ASK))
    messages: list[bytes] = []
    found: dict[str, Any] = {}
    while "permission_requested" not in found:
        messages += await caller.first(call)
        events = [e for m in messages for e in pb.SendResponse.FromString(m).events]
        found = {str(e.WhichOneof("kind")): e for e in events}
    turn = found["turn_started"].turn_started.turn_id
    permission = found["permission_requested"].permission_requested.permission_id

    async def answer() -> Answer:
        allow = pb.RespondRequest.Allow()
        respond = pb.RespondRequest(session_id=name, permission_id=permission, allow=allow)
        assert (await caller.call("Respond", respond)).code is OK, "it cannot be answered"
        return await caller.end(call, messages)

    try:
        yield Open(name, turn, permission), answer
    finally:
        call.cancel()
        await caller.call("CloseSession", pb.CloseSessionRequest(session_id=name))


@asynccontextmanager
async def asking(arena: Arena) -> AsyncIterator[Open]:
    """Hold a victim's turn open; in the end it must be answered and completed as if nothing was."""
    victim = arena.victim
    _, said = victim.asks()
    async with held(victim.caller, f"{victim.session}x", said) as (open, answer):
        victim.names += [open.turn, open.permission]
        yield open
        found = await answer()
        assert found.result == said, f"the victim's turn: {found}"


async def same(arena: Arena, method: str, theirs: Message, none: Message) -> Answer:
    """Raise `AssertionError` unless the victim's ids are answered like unknown ids."""
    found = [await arena.attacker.call(method, asked) for asked in (theirs, none)]
    assert found[0].bytes == found[1].bytes, [answer.details for answer in found]
    assert found[0].code is found[1].code
    return found[0]


@attack("edge.validate.session", "plain", without="session's tenant")
async def reading_anothers_session(arena: Arena) -> None:
    """GetSession answers as for a session that does not exist."""
    theirs = pb.GetSessionRequest(session_id=arena.victim.session)
    answer = await same(arena, "GetSession", theirs, pb.GetSessionRequest(session_id="none"))
    assert answer.reason == "SESSION_NOT_FOUND"


@attack("edge.validate.attach", "plain", without="stream's tenant")
async def following_anothers_turn(arena: Arena) -> None:
    """Attach to a turn that runs answers as for one that does not exist."""
    async with asking(arena) as open:
        theirs = pb.AttachRequest(session_id=open.session, turn_id=open.turn)
        none = pb.AttachRequest(session_id="none", turn_id=ELSEWHERE)
        assert (await same(arena, "Attach", theirs, none)).reason == "SESSION_NOT_FOUND"


@attack("edge.validate.turn", "plain", without="turn's tenant")
async def stopping_anothers_turn(arena: Arena) -> None:
    """Interrupt finds nothing, and the turn runs on."""
    async with asking(arena) as open:
        theirs = pb.InterruptRequest(session_id=open.session, turn_id=open.turn)
        await same(
            arena, "Interrupt", theirs, pb.InterruptRequest(session_id="none", turn_id=ELSEWHERE)
        )


@attack("edge.validate.respond", "plain", without="answer's tenant")
async def answering_for_another(arena: Arena) -> None:
    """Respond finds nothing, and the turn still waits."""
    async with asking(arena) as open:
        deny = pb.RespondRequest.Deny(interrupt=True)
        theirs, none = (
            pb.RespondRequest(session_id=name, permission_id=open.permission, deny=deny)
            for name in (open.session, "none")
        )
        await same(arena, "Respond", theirs, none)


@attack("core.sessions.sessions.Sessions.close", "plain", without="session's tenant")
async def closing_anothers_session(arena: Arena) -> None:
    """CloseSession succeeds as for a session that does not exist, and closes nothing."""
    async with asking(arena) as open:
        theirs = pb.CloseSessionRequest(session_id=open.session)
        await same(arena, "CloseSession", theirs, pb.CloseSessionRequest(session_id="none"))


@attack("edge.validate.send", "plain", without="prompt's tenant")
async def sending_into_anothers_session(arena: Arena) -> None:
    """Without a spec the session does not exist; with one, it is the attacker's own and new."""
    name, known = arena.victim.session, fake(verbs.history())
    theirs, none = (sending(known, session) for session in (name, "none"))
    for request in (theirs, none):
        request.ClearField("spec")
    await same(arena, "Send", theirs, none)
    answer = await arena.attacker.turn(known, name)
    assert answer.result.count("fake:") == 1, "the answer has another's prompts"
    arena.attacker.heard.clear()  # its own session bears the victim's name


@attack("core.sessions.sessions.Sessions.begin", "plain", without="prompt's tenant")
async def joining_anothers_turn_by_its_id(arena: Arena) -> None:
    """A turn's id is of its session: under one's own it is another turn."""
    async with asking(arena) as open:
        answer = await arena.attacker.turn("Say mine", open.session, turn_id=open.turn)
        assert answer.result == "mine", answer
        arena.attacker.heard.clear()  # its own turn bears the victim's id


@attack("edge.session_service.SessionService._list", "plain", without="list's tenant")
async def listing_anothers_sessions(arena: Arena) -> None:
    """A list has one's own sessions, whatever state is asked for."""
    await arena.attacker.turn("Say x", "own")
    for state in range(5):
        asked = pb.ListSessionsRequest(page_size=500, state=state)  # type: ignore[arg-type]  # any number
        answer = await arena.attacker.call("ListSessions", asked)
        found = pb.ListSessionsResponse.FromString(b"".join(answer.messages)).sessions
        assert {info.session_id for info in found} <= {"own"}


@attack("edge.pages.Pages.cursor", "plain", without="page's signature")
async def page_tokens_of_others(arena: Arena) -> None:
    """Another tenant's token, a changed one, another list's, and an invented one are refused."""
    await arena.attacker.turn("Say x", "own")
    tokens = [await token(arena, VICTIM), "AAAA", 200 * "A", "%%%", "\u2028"]
    own = await token(arena, "attacker")
    tokens += [own[:-4] + "AAAA", "A" + own, own.lower()]
    for text in tokens:
        asked = pb.ListSessionsRequest(page_size=1, page_token=text)
        answer = await arena.attacker.call("ListSessions", asked)
        assert answer.reason == "REQUEST_INVALID", text
    other = pb.ListSessionsRequest(page_size=1, page_token=own, state=pb.SessionInfo.STATE_WARM)
    assert (await arena.attacker.call("ListSessions", other)).reason == "REQUEST_INVALID"


async def token(arena: Arena, tenant: str) -> str:
    """Return the token of a tenant's next page."""
    caller = arena.victim.caller if tenant == VICTIM else arena.attacker
    answer = await caller.call("ListSessions", pb.ListSessionsRequest(page_size=1))
    return pb.ListSessionsResponse.FromString(b"".join(answer.messages)).next_page_token
