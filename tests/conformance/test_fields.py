"""Each field of the contract, by its descriptor, with each language's client.

What is added to the contract is missing here until all clients have it.
"""

import base64
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from support.scripted_server import Script, finished, playing, started

from conformance.driving import Driver, Line
from samovar.v1 import session_pb2 as pb

TURN_ID = "8f14e45f-ceea-4e7a-9c3b-2d1f5a6b7c8d"
#: For each field of a request, the option that sets it, its value, and the field's value then.
OPTIONS: dict[str, tuple[str, Any, Any]] = {
    "session_id": ("session", "s", "s"),
    "turn_id": ("turn_id", TURN_ID, TURN_ID),
    "spec.profile": ("profile", "p", "p"),
    "spec.model": ("model", "m", "m"),
    "spec.append_system_prompt": ("append_system_prompt", "Be brief.", "Be brief."),
    "spec.permission_policy": ("permission_policy", "ask", pb.PERMISSION_POLICY_ASK),
    "spec.labels": ("labels", {"shop": "berlin"}, {"shop": "berlin"}),
    "limits.turn_timeout": ("turn_timeout", 1.5, Duration(seconds=1, nanos=500_000_000)),
    "limits.max_agent_steps": ("max_agent_steps", 7, 7),
    "on_disconnect": ("keep_running", True, pb.DISCONNECT_POLICY_CONTINUE),
    "event_options.partial": ("partial", False, False),
    "event_options.thinking": ("thinking", True, True),
    "event_options.raw_json": ("raw_json", True, True),
}
#: What a driver says by other means: the content beside the options.
ELSEWHERE = {"content"}
#: Fields of an event that no client has; see `clients/conformance.md`.
NOT_SHOWN = {"raw_json_bytes"}
KINDS = list(pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields)


def leaves(of: Descriptor, before: str = "") -> Iterator[str]:
    """Yield the paths of the fields of a message, those of messages in it instead of them."""
    for field in of.fields:
        inner = field.message_type
        if inner is None or inner.file.name != of.file.name or is_repeated(field):
            yield before + field.name
        else:
            yield from leaves(inner, f"{before}{field.name}.")


def is_repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def at(message: Any, path: str) -> Any:
    """Return the value of a field by its path."""
    for name in path.split("."):
        message = getattr(message, name)
    return message


def sent(driver: Driver, **options: Any) -> Any:
    """Return the request that a turn with these options sends."""
    script = Script([started(), finished(sequence=2)])
    with playing(script) as target, driver.client(target) as client:
        client.send("Hello", **options).events()
    return script.requests[0]


def test_the_table_of_options_is_whole() -> None:
    """Each field of a request has its option."""
    assert set(leaves(pb.SendRequest.DESCRIPTOR)) - ELSEWHERE == set(OPTIONS)


def test_each_option_arrives(driver: Driver) -> None:
    """Each field of a request can be set by an option, and arrives as it was set."""
    request = sent(driver, **{option: value for option, value, _ in OPTIONS.values()})
    for path, (option, _, expected) in OPTIONS.items():
        found = at(request, path)
        assert (dict(found) if isinstance(expected, dict) else found) == expected, option


def test_what_is_not_set_is_not_sent(driver: Driver) -> None:
    """Without options a request has an id, and asks for deltas: nothing else is in it."""
    request = sent(driver)
    assert request.turn_id
    expected = pb.SendRequest(
        turn_id=request.turn_id,
        content=[pb.Content(text="Hello")],
        event_options=pb.EventOptions(partial=True),
    )
    assert request == expected


def test_a_named_session_is_made(driver: Driver) -> None:
    """A session that is named is made if it does not exist, unless `create` is false."""
    assert sent(driver, session="s").HasField("spec")
    assert not sent(driver, session="s", create=False).HasField("spec")
    assert sent(driver, labels={"a": "b"}).HasField("spec")


def filled(message: Any, numbers: Iterator[int]) -> Any:
    """Fill each field of a message with a value that no other has."""
    for field in message.DESCRIPTOR.fields:
        if message.DESCRIPTOR.name == "Event" and field.containing_oneof is not None:
            continue
        value = getattr(message, field.name)
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            filled(value["a-model"], numbers)
        elif inner is not None and not is_repeated(field):
            filled(value, numbers)
        elif is_repeated(field):
            value.extend([f"text {next(numbers)}", f"text {next(numbers)}"])
        else:
            setattr(message, field.name, scalar(field, next(numbers)))
    return message


def scalar(field: FieldDescriptor, number: int) -> Any:
    """Return a value that is not the default."""
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    values = {
        FieldDescriptor.CPPTYPE_BOOL: True,
        FieldDescriptor.CPPTYPE_DOUBLE: number / 8,
        FieldDescriptor.CPPTYPE_STRING: f"text {number}",
    }
    if field.type == FieldDescriptor.TYPE_BYTES:
        return f"bytes {number}".encode()
    return values.get(field.cpp_type, number)


def shown(message: Message, *, skip: set[str] = frozenset()) -> Line:  # type: ignore[assignment]  # empty
    """Return a message as a driver has to show it."""
    return {
        field.name: plain(field, getattr(message, field.name))
        for field in message.DESCRIPTOR.fields
        if field.name not in skip
    }


def plain(field: Any, value: Any) -> Any:
    """Return a field's value as JSON has it."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return {key: shown(value[key]) for key in value}
    if is_repeated(field):
        return list(value)
    if isinstance(value, Timestamp | Duration):
        return pytest.approx(value.seconds + value.nanos / 1e9)
    if inner is not None:
        return shown(value)
    if field.enum_type is not None:
        values = field.enum_type.values
        prefix = values[0].name.removesuffix("UNSPECIFIED")
        return field.enum_type.values_by_number[value].name.removeprefix(prefix).lower()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("kind", KINDS, ids=lambda field: str(field.name))
def test_each_field_of_an_event_is_shown(driver: Driver, kind: FieldDescriptor) -> None:
    """Each field of each event comes out of the client, as the service sent it."""
    numbers = itertools.count(1)
    event = filled(pb.Event(), numbers)
    getattr(event, kind.name).SetInParent()
    filled(getattr(event, kind.name), numbers)
    event.sequence = 2
    script = Script([started(), event, finished()])
    with playing(script) as target, driver.client(target) as client:
        _, found, *_ = client.send("Hello").events()
    head = {field.name for field in KINDS} | NOT_SHOWN
    expected = shown(event, skip=head) | shown(getattr(event, kind.name))
    assert found == {"kind": kind.name, **expected}


def test_what_an_event_lacks_is_null(driver: Driver) -> None:
    """Times and durations that are absent are null, all other fields have their defaults."""
    end = pb.TurnFinished(timings=pb.TurnTimings(), usage=pb.Usage())
    script = Script([started(), pb.Event(sequence=2, turn_finished=end)])
    with playing(script) as target, driver.client(target) as client:
        last = client.send("Hello").events()[-1]
    assert last["upstream_retry_delay"] is None
    assert set(last["timings"].values()) == {None}
    assert (last["outcome"], last["failure_cause"]) == ("unspecified", "unspecified")
    assert (last["errors"], last["usage_by_model"]) == ([], {})
    assert last.get("raw_json") is None


def test_an_answer_has_what_its_turn_finished_with(driver: Driver) -> None:
    """The usage and the times of an answer are those of its turn."""
    end = pb.Event(sequence=2, turn_finished=filled(pb.TurnFinished(), itertools.count(1)))
    end.turn_finished.outcome = pb.TurnFinished.OUTCOME_LIMIT_REACHED
    script = Script([started(turn_id=TURN_ID), end])
    with playing(script) as target, driver.client(target) as client:
        answer = client.ask("Hello")
    told = shown(end.turn_finished)
    assert (answer["usage"], answer["timings"]) == (told["usage"], told["timings"])
    assert (answer["outcome"], answer["turn_id"]) == ("limit_reached", TURN_ID)
    assert answer["session"] == "default"
