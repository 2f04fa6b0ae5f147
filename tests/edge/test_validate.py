"""What a request may hold."""

import json
from collections.abc import Callable

import pytest
from google.protobuf import duration_pb2

from samovar.v1 import session_pb2 as pb
from samovard.core.errors import RequestInvalid
from samovard.core.process import Allow, Deny, Document, Image, Text
from samovard.core.records import SessionKey
from samovard.core.turn.limits import Limits
from samovard.core.turn.turn import Disconnect
from samovard.edge import validate

TURN = "0af76519-16cd-43dd-8448-eb211c80319c"


def request(**fields: object) -> pb.SendRequest:
    fields.setdefault("content", [pb.Content(text="Hello")])
    return pb.SendRequest(**fields)  # type: ignore[arg-type]  # the test's own fields


def test_one_block_of_text_is_enough() -> None:
    """The simplest request goes to the session `default`, with a turn id of our making."""
    sending = validate.send("acme", request())
    assert sending.key == SessionKey("acme", "default")
    assert sending.prompt.content == (Text(b"Hello"),)
    assert sending.spec is None
    assert validate.TURN.fullmatch(sending.prompt.turn_id)


def test_all_fields_arrive() -> None:
    """What is set in the request is set in what the core gets."""
    sending = validate.send(
        "acme",
        request(
            session_id="a.b-c_d",
            turn_id=TURN,
            content=[
                pb.Content(image=pb.Content.Image(media_type="image/png", data=b"p")),
                pb.Content(
                    document=pb.Content.Document(media_type="application/pdf", data=b"d", title="t")
                ),
            ],
            spec=pb.SessionSpec(model="opus", labels={"k": "v"}),
            limits=pb.Limits(turn_timeout=duration_pb2.Duration(seconds=3), max_agent_steps=4),
            on_disconnect=pb.DISCONNECT_POLICY_CONTINUE,
            event_options=pb.EventOptions(partial=True, thinking=True, raw_json=True),
        ),
    )
    assert sending.prompt.content == (
        Image("image/png", b"p"),
        Document("application/pdf", b"d", "t"),
    )
    assert sending.spec is not None
    assert (sending.spec.model, sending.spec.labels) == ("opus", {"k": "v"})
    assert sending.limits == Limits(timeout=3.0, steps=4)
    assert sending.on_disconnect is Disconnect.CONTINUE
    assert sending.prompt.options.partial
    assert sending.prompt.options.thinking
    assert sending.prompt.options.raw_json


BAD = {
    "content": lambda: request(content=[]),
    "content[0]": lambda: request(content=[pb.Content(text=" \n")]),
    "content[1]": lambda: request(content=[pb.Content(text="a"), pb.Content()]),
    "session_id": lambda: request(session_id="Upper"),
    "turn_id": lambda: request(turn_id=TURN.upper()),
    "spec.model": lambda: request(spec=pb.SessionSpec(model="--flag x")),
    "spec.append_system_prompt": lambda: request(
        spec=pb.SessionSpec(append_system_prompt="x" * 70_000)
    ),
    "spec.labels": lambda: request(spec=pb.SessionSpec(labels={"k" * 65: "v"})),
    "limits.turn_timeout": lambda: request(
        limits=pb.Limits(turn_timeout=duration_pb2.Duration(seconds=-1))
    ),
    "": lambda: request(content=[pb.Content(text="x" * (validate.MAX_REQUEST + 1))]),
}


@pytest.mark.parametrize("field", BAD)
def test_a_bad_field_is_named(field: str) -> None:
    """Each bad field is reported by its name."""
    build: Callable[[], pb.SendRequest] = BAD[field]
    with pytest.raises(RequestInvalid) as error:
        validate.send("acme", build())
    assert [name for name, _ in error.value.violations] == [field]


@pytest.mark.parametrize(
    "content",
    [
        pb.Content(text="a\0b"),
        pb.Content(image=pb.Content.Image(media_type="image/tiff", data=b"x")),
        pb.Content(image=pb.Content.Image(media_type="image/png")),
        pb.Content(document=pb.Content.Document(media_type="text/html", data=b"x")),
    ],
)
def test_a_bad_block_is_refused(content: pb.Content) -> None:
    """Text without NUL, images and documents of the listed types, and never empty."""
    with pytest.raises(RequestInvalid):
        validate.send("acme", request(content=[content]))


def test_every_violation_is_reported_at_once() -> None:
    """A caller need not mend one field to hear of the next."""
    with pytest.raises(RequestInvalid) as error:
        validate.send("acme", request(content=[], session_id="?", turn_id="?"))
    assert len(error.value.violations) == 3


def test_close_needs_a_name() -> None:
    """What destroys is never implied."""
    with pytest.raises(RequestInvalid):
        validate.session("acme", "", required=True)


def text(*texts: str) -> list[pb.Content]:
    return [pb.Content(text=text) for text in texts]


def document(data: bytes, title: str, media_type: str = "text/plain") -> list[pb.Content]:
    file = pb.Content.Document(media_type=media_type, data=data, title=title)
    return [pb.Content(document=file)]


def image(data: bytes, media_type: str) -> list[pb.Content]:
    return [pb.Content(image=pb.Content.Image(media_type=media_type, data=data))]


NEAR = (
    text(),
    text("ab"),
    text("a", "b"),
    text("ba"),
    text("b", "a"),
    text("text", "ab"),
    image(b"ab", "image/png"),
    image(b"ab", "image/gif"),
    image(b"a", "image/png") + text("b"),
    document(b"ab", ""),
    document(b"a", "b"),
    document(b"b", "a"),
    document(b"ab", "", "application/pdf"),
    document(b"a", "") + text("b"),
    text("image", "image/png", "ab"),
    text("document", "text/plain", "a", "b"),
)


def test_a_digest_is_of_one_content_only() -> None:
    """However its bytes are split among blocks and fields, and whatever kind they are of."""
    digests = [validate._digest(map(validate._block, contents)) for contents in NEAR]
    assert len({*digests}) == len(NEAR)
    assert digests == [validate._digest(map(validate._block, contents)) for contents in NEAR]


def allow(changed: str = "", **fields: str) -> pb.RespondRequest:
    decision = pb.RespondRequest.Allow(updated_input_json=changed)
    return pb.RespondRequest(permission_id="p", allow=decision, **fields)  # type: ignore[arg-type]  # the test's own fields


def test_a_decision_arrives() -> None:
    """An answer goes to the session `default` unless it names one, as it was given."""
    default = SessionKey("acme", "default")
    assert validate.respond("acme", allow()) == (default, "p", Allow())
    key, _, _ = validate.respond("acme", allow(session_id="s"))
    assert key == SessionKey("acme", "s")
    deny = pb.RespondRequest(
        permission_id="p", deny=pb.RespondRequest.Deny(message="no", interrupt=True)
    )
    assert validate.respond("acme", deny) == (default, "p", Deny("no", interrupt=True))


def test_an_answer_needs_its_request_and_a_decision() -> None:
    """Neither is implied; both are reported."""
    with pytest.raises(RequestInvalid) as error:
        validate.respond("acme", pb.RespondRequest())
    assert {field for field, _ in error.value.violations} == {"permission_id", "decision"}


@pytest.mark.parametrize(
    ("changed", "written"),
    [
        (' {"a" : [1, 2.5, null]}\n', '{"a":[1,2.5,null]}'),
        ('{"a":1,"a":2}', '{"a":2}'),
        ('{"n":123456789012345678901234567890}', '{"n":123456789012345678901234567890}'),
        ('{"t":"é\\n\u2028"}', '{"t":"\\u00e9\\n\\u2028"}'),
        ("{}", "{}"),
    ],
)
def test_a_changed_input_is_written_anew(changed: str, written: str) -> None:
    """What goes to the agent is what was read: ASCII, one line, each key once."""
    _, _, decision = validate.respond("acme", allow(changed))
    assert decision == Allow(written)


@pytest.mark.parametrize(
    "changed",
    [
        "[]",
        "1",
        "{",
        "{} {}",
        '{"a":NaN}',
        '{"a":1e999}',
        '{"a":' * 33 + "1" + "}" * 33,
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        json.dumps({"a": "x" * validate.MAX_INPUT}),
    ],
    ids=lambda text: text[:12],
)
def test_a_changed_input_is_a_small_object(changed: str) -> None:
    """One JSON object of at most 256 KiB, not deeper than any tool's."""
    with pytest.raises(RequestInvalid) as error:
        validate.respond("acme", allow(changed))
    assert error.value.violations[0][0] == "allow.updated_input_json"


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (1, 1), (500, 500), (501, 500)])
def test_a_page_is_as_large_as_is_asked_for_within_bounds(asked: int, given: int) -> None:
    """0 is 50, and above 500 is 500."""
    assert validate.page_size(asked, 50, 500) == given
    with pytest.raises(RequestInvalid):
        validate.page_size(-asked - 1, 50, 500)
