"""Names that would be a path, a flag, a statement or another tenant's, if they were accepted."""

import json
from typing import Any

from fake_claude import fake, verbs
from google.protobuf.duration_pb2 import Duration

from samovar.v1 import session_pb2 as pb
from security.actors import sending
from security.arena import ATTACKER, Arena
from security.catalog import attack
from security.tenancy import ELSEWHERE

INVALID = "REQUEST_INVALID"
BAD = (
    "../../etc", "/etc/passwd", "a/b", "a\\b", "..", ".", "-rf", "--resume=x", "a\0b", "a\nb",
    "a b", "é", "Vault", "ｖault", "vau\u200blt", "v\u0430ult", "a%2fb", "$(id)", ";id", "~",
    "' or ''='", "*", 64 * "a", 100_000 * "a", "\u202etluav", "a\x1b[31m", "CON ",
)  # fmt: skip


@attack("edge.validate.NAME", "plain", "tls", without="session's name")
async def sessions_names(arena: Arena) -> None:
    """Paths, flags, controls, look-alikes and long ones are refused by every method."""
    for name in BAD:
        id: dict[str, Any] = {"session_id": name}
        answer = await arena.attacker.turn("Say x", name)
        assert answer.reason == INVALID, ("Send", name)
        for method, request in (
            ("GetSession", pb.GetSessionRequest(**id)),
            ("CloseSession", pb.CloseSessionRequest(**id)),
            ("Attach", pb.AttachRequest(**id, turn_id=ELSEWHERE)),
            ("Interrupt", pb.InterruptRequest(**id, turn_id=ELSEWHERE)),
            ("Respond", pb.RespondRequest(**id, permission_id="x", deny=pb.RespondRequest.Deny())),
        ):
            answer = await arena.attacker.call(method, request)
            assert answer.reason == INVALID, (method, name, answer)


@attack("edge.validate.TURN", "plain", without="turn's id")
async def turns_ids(arena: Arena) -> None:
    """What is no lower-case UUID names no turn, and is written to no agent."""
    for id in (
        "x",
        ELSEWHERE.replace("4", "A"),
        f"{ELSEWHERE}\n",
        f"{{{ELSEWHERE}}}",
        "-",
        9 * "0-",
    ):
        answer = await arena.attacker.turn("Say x", turn_id=id)
        assert answer.reason == INVALID, id
        for method, kind in (("Interrupt", pb.InterruptRequest), ("Attach", pb.AttachRequest)):
            request = kind(session_id="a", turn_id=id)
            assert (await arena.attacker.call(method, request)).reason == INVALID, (method, id)


@attack("core.sessions.conversation._check", "plain", without="profile's models")
async def models_that_are_flags(arena: Arena) -> None:
    """Flags, paths and models that the profile does not have start nothing."""
    for model in ("--dangerously-skip-permissions", "-p", "=x", "x.jsonl", "../x", "opus", "a\nb"):
        answer = await arena.attacker.turn("Say x", spec=pb.SessionSpec(model=model))
        assert answer.reason == INVALID, model


@attack("core.sessions.sessions.Sessions._make", "plain", without="known profiles")
async def profiles_that_do_not_exist(arena: Arena) -> None:
    """A session has one of the operator's profiles, by its name to the letter."""
    for profile in ("none", "../default", "Default", "default ", "__class__", "de\u0301fault"):
        answer = await arena.attacker.turn("Say x", spec=pb.SessionSpec(profile=profile))
        assert answer.reason == INVALID, profile


@attack("core.sessions.conversation.SessionRules.allow_ask", "plain", without="profile's models")
async def a_policy_that_the_profile_denies(arena: Arena) -> None:
    """A session cannot choose to be asked, and knows no policy of its own."""
    for policy in (pb.PERMISSION_POLICY_ASK, 7, -1):
        spec = pb.SessionSpec(permission_policy=policy)  # type: ignore[arg-type]  # any number
        assert (await arena.attacker.turn("Say x", spec=spec)).reason == INVALID, policy


@attack("edge.validate._spec_violations", "plain", without="labels")
async def labels_and_prompts_without_end(arena: Arena) -> None:
    """More labels, longer ones and a longer appended prompt than a session may have are refused."""
    for spec in (
        pb.SessionSpec(labels={str(n): "x" for n in range(17)}),
        pb.SessionSpec(labels={"": "x"}),
        pb.SessionSpec(labels={"x": 65 * "x"}),
        pb.SessionSpec(labels={65 * "x": "x"}),
        pb.SessionSpec(append_system_prompt=65_537 * "x"),
    ):
        assert (await arena.attacker.turn("Say x", spec=spec)).reason == INVALID, str(spec)[:60]


@attack("edge.validate.MAX_BLOCKS", "plain", without="blocks")
async def blocks_without_end(arena: Arena) -> None:
    """A request has 64 blocks at most, each of a kind that is known and not empty."""
    for content in (
        [pb.Content(text="x")] * 65,
        [pb.Content(text="x")] * arena.scale(10_000, 500_000),
        [],
        [pb.Content()],
        [pb.Content(text=" \n\u2028")],
        [pb.Content(image=pb.Content.Image(media_type="text/html", data=b"x"))],
        [pb.Content(document=pb.Content.Document(media_type="application/pdf"))],
    ):
        request = pb.SendRequest(session_id="a", content=content, spec=pb.SessionSpec())
        assert (await arena.attacker.call("Send", request)).reason == INVALID, len(content)


@attack("edge.validate._limits", "plain", without="limits")
async def limits_that_are_none(arena: Arena) -> None:
    """Times and steps below zero are refused; what is beyond the profile's is the profile's."""
    for limits in (
        pb.Limits(turn_timeout=Duration(seconds=-1)),
        pb.Limits(turn_timeout=Duration()),
        pb.Limits(turn_timeout=Duration(seconds=-(2**63))),
        pb.Limits(max_agent_steps=-1),
    ):
        assert (await arena.attacker.turn("Say x", limits=limits)).reason == INVALID, limits
    huge = pb.Limits(turn_timeout=Duration(seconds=2**63 - 1, nanos=2**31 - 1))
    assert (await arena.attacker.turn("Say x", limits=huge)).result == "x"


@attack("core.sessions.conversation.begun", "plain", without="made names")
async def a_name_that_would_be_a_path(arena: Arena) -> None:
    """Neither a session's name nor its tenant is in a path, an argument or a variable."""
    name = "cafe0123cafe0123"
    for verb in (verbs.env(), verbs.argv()):
        answer = await arena.attacker.turn(fake(verb), name)
        assert json.loads(answer.result), answer
        assert name not in answer.result, answer.result
        assert ATTACKER not in answer.result, answer.result


@attack("core.sessions.sessions.differences", "plain", without="spec of a session")
async def another_profile_for_a_session_that_runs(arena: Arena) -> None:
    """A session keeps what it was made with: another profile under its name is refused."""
    await arena.attacker.turn("Say x", "kept")
    spec = pb.SessionSpec(profile="ask")
    answer = await arena.attacker.call("Send", sending("Say x", "kept", spec=spec))
    assert answer.reason == "ID_TAKEN", answer
