"""Tools that need permission, with each language's client."""

import json
from typing import Any

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.program import Program
from support.scripted_server import Refusal, Script, finished, playing, started

from conformance.driving import Client, Driver, Line
from samovar.v1 import session_pb2 as pb

PROMPT = fake(v.permission("Write", {"file_path": "note.txt"}))


def begin(client: Client, session: str, call: str = "send", **fields: Any) -> Any:
    """Begin a turn that asks for permission."""
    options = {"session": session, "permission_policy": "ask"}
    return client.call(call, content=[{"text": PROMPT}], options=options, **fields)


def of(kind: str, events: list[Line]) -> Line:
    """Return the only event of a kind."""
    (found,) = (event for event in events if event["kind"] == kind)
    return found


def test_a_tool_is_allowed(client: Client) -> None:
    """The event of a request tells what the tool is to do, and `allow` lets it."""
    turn = begin(client, "allowed")
    asked = turn.until("permission_requested")[-1]
    assert asked["tool_name"] == "Write"
    assert json.loads(asked["input_json"]) == {"file_path": "note.txt"}
    assert asked["expire_time"] > asked["time"]
    id = asked["permission_id"]
    assert client.call("allow", permission_id=id, session="allowed").done() == {}
    events = turn.events()
    resolved = of("permission_resolved", events)
    assert (resolved["permission_id"], resolved["resolution"]) == (id, "allowed")
    assert events[-1]["result"] == "Allowed."
    assert events[-1]["timings"]["permission_wait"] > 0


def test_a_tool_is_denied(client: Client) -> None:
    """`deny` keeps the tool from running, and tells the agent why."""
    turn = begin(client, "denied")
    id = turn.until("permission_requested")[-1]["permission_id"]
    denial = {"permission_id": id, "session": "denied", "message": "not on a Friday"}
    assert client.call("deny", **denial).done() == {}
    events = turn.events()
    assert of("permission_resolved", events)["resolution"] == "denied"
    assert of("tool_result", events)["text"] == "not on a Friday"
    assert events[-1]["result"] == "Denied."


def test_another_client_answers(driver: Driver, service: Program, client: Client) -> None:
    """Another client of the tenant answers, with another input for the tool."""
    turn = begin(client, "elsewhere")
    id = turn.until("permission_requested")[-1]["permission_id"]
    answer = {"permission_id": id, "session": "elsewhere", "updated_input": {"file_path": "ü"}}
    with driver.client(service.address) as other:
        assert other.call("allow", **answer).done() == {}
    result = of("tool_result", turn.events())
    assert json.loads(result["text"]) == {"file_path": "ü"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (True, "Allowed."),
        ({"allow": {}}, "Allowed."),
        (False, "Denied."),
        ({"deny": {}}, "Denied."),
    ],
    ids=["true", "allow", "false", "deny"],
)
def test_a_callback_decides(client: Client, answer: Any, said: str) -> None:
    """The permission callback allows or denies, for a stream and for an answer."""
    assert begin(client, "callback", "ask", permissions=answer).done()["text"] == said
    assert begin(client, "callback", permissions=answer).events()[-1]["result"] == said


def test_a_callback_gives_another_input(client: Client) -> None:
    """The permission callback replaces the tool's input."""
    answer = {"allow": {"updated_input": {"file_path": "other.txt"}}}
    result = of("tool_result", begin(client, "rewritten", permissions=answer).events())
    assert json.loads(result["text"]) == {"file_path": "other.txt"}


def test_a_callback_denies_and_interrupts(client: Client) -> None:
    """The permission callback denies with a reason, and can end the turn."""
    answer: Line = {"deny": {"message": "too late"}}
    events = begin(client, "reasons", permissions=answer).events()
    assert of("tool_result", events)["text"] == "too late"
    answer["deny"]["interrupt"] = True
    assert begin(client, "reasons", permissions=answer).events()[-1]["outcome"] == "interrupted"


class Late(Script):
    """A script whose permission request is over before it is answered."""

    def Respond(self, request: pb.RespondRequest, context: Any) -> None:
        self.requests.append(request)
        Refusal("PERMISSION_NOT_FOUND", code=5).end(context)


def test_a_callback_that_is_too_late(driver: Driver) -> None:
    """The turn goes on if its request is over when the permission callback answers."""
    asked = pb.PermissionRequested(permission_id="p", tool_name="Write")
    event = pb.Event(sequence=2, permission_requested=asked)
    script = Late([started(), event, finished("on")])
    with playing(script) as target, driver.client(target) as client:
        content = [{"text": "Hello"}]
        turn = client.call("send", content=content, options={"session": "s"}, permissions=False)
        assert [each["sequence"] for each in turn.events()] == [1, 2, 3]
    _, answer = script.requests
    assert (answer.session_id, answer.permission_id) == ("s", "p")
    assert answer.HasField("deny")


def test_an_answer_that_is_too_late(client: Client) -> None:
    """An answer to no open request is `permission_not_found`."""
    turn = begin(client, "late", permissions=True)
    asked = of("permission_requested", turn.events())
    for call in ("deny", "allow"):
        which = {"permission_id": asked["permission_id"] + "x", "session": "late"}
        assert client.call(call, **which).failed()["kind"] == "permission_not_found"
