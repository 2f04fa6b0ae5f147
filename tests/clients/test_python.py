"""The Python client, against a server that plays a script, and against the real service."""

import asyncio
import re
import typing
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from fake_claude import fake
from fake_claude import verbs as v
from google.protobuf.duration_pb2 import Duration
from support.scripted_server import Refusal, Script, finished, playing, said, started
from support.service import serving
from support.timeouts import BOUND

import samovar
from samovar import errors, events, requests, turns
from samovar.v1 import errors_pb2
from samovar.v1 import session_pb2 as pb

REASONS = [
    name.removeprefix("ERROR_REASON_") for name, number in errors_pb2.ErrorReason.items() if number
]
REPEATED = "READER_TOO_SLOW"  # by the client itself


def test_send_yields_typed_events() -> None:
    """Each kind of event is a class of its own, with number and fields."""
    script = Script([started(pid=7), said("hi"), finished("hi")])
    with playing(script) as target, samovar.Client(target) as client:
        first, second, third = client.send("Hello")
    assert isinstance(first, samovar.TurnStarted)
    assert isinstance(second, samovar.TextDelta)
    assert isinstance(third, samovar.TurnFinished)
    assert (first.pid, second.text, third.outcome) == (7, "hi", samovar.Outcome.COMPLETED)
    assert [event.sequence for event in (first, second, third)] == [1, 2, 3]


def test_ask_gives_text_and_usage() -> None:
    """`ask` gives the final text, what it cost, and where it ran."""
    usage = pb.Usage(output_tokens=5)
    script = Script([started(turn_id="t"), said("hi"), finished("hi", usage=usage)])
    with playing(script) as target, samovar.Client(target) as client:
        answer = client.ask("Hello")
    assert (answer.text, answer.usage.output_tokens, answer.turn_id) == ("hi", 5, "t")


def test_ask_puts_a_cut_result_together_from_deltas() -> None:
    """A result that was cut is whole in the deltas, less what was abandoned."""
    void = pb.Event(sequence=3, blocks_abandoned=pb.BlocksAbandoned(message_id="m"))
    again = pb.Event(sequence=4, text_delta=pb.TextDelta(message_id="n", text="whole"))
    end = finished("wh", result_truncated_bytes=3, sequence=5)
    script = Script([started(), said("broken"), void, again, end])
    with playing(script) as target, samovar.Client(target) as client:
        assert client.ask("Hello").text == "whole"


def test_a_failed_turn_is_an_error_of_ask() -> None:
    """`ask` raises what the agent reported; `send` does not."""
    failed = pb.TurnFinished.OUTCOME_FAILED
    billing = pb.TurnFinished.FAILURE_CAUSE_BILLING
    delay = Duration(seconds=7)
    end = finished(
        outcome=failed,
        errors=["no"],
        upstream_status=529,
        failure_cause=billing,
        upstream_retry_delay=delay,
    )
    script = Script([started(), end], [started(), end])
    with playing(script) as target, samovar.Client(target) as client:
        with pytest.raises(samovar.TurnFailed) as error:
            client.ask("Hello")
        assert (error.value.errors, error.value.upstream_status) == (("no",), 529)
        assert error.value.failure_cause is samovar.FailureCause.BILLING
        assert error.value.upstream_retry_delay == 7
        _, told = client.send("Hello")
        assert isinstance(told, samovar.TurnFinished)
        assert told.failure_cause is samovar.FailureCause.BILLING


def test_metadata_names_the_session_and_the_key() -> None:
    """`session-id` is the session's name, and the key is a bearer token."""
    script = Script([finished()], [finished()])
    with playing(script) as target, samovar.Client(target, api_key="k") as client:
        list(client.send("a"))
        list(client.send("b", session="s"))
    assert [m["session-id"] for m in script.metadata] == ["default", "s"]
    assert script.metadata[0]["authorization"] == "Bearer k"
    assert [r.HasField("spec") for r in script.requests] == [False, True]


def test_a_refusal_is_repeated_with_the_same_turn_id() -> None:
    """A refusal with RetryInfo is repeated after its delay, until the deadline."""
    script = Script(Refusal("NO_PROCESS", 0.01), Refusal("DRAINING", 0.01), [finished("x")])
    with playing(script) as target, samovar.Client(target, deadline=BOUND) as client:
        list(client.send("Hello"))
    assert len({request.turn_id for request in script.requests}) == 1
    assert len(script.requests) == 3
    assert uuid.UUID(script.requests[0].turn_id)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal("NO_PROCESS", 10 * BOUND),
        Refusal("TURN_LOST", code=10, promptWritten="true"),
        Refusal("SESSION_BUSY", code=9),
    ],
)
def test_nothing_else_is_repeated(refusal: Refusal) -> None:
    """Neither what began, nor what says no delay, nor what is due after the deadline."""
    script = Script(refusal)
    with playing(script) as target, samovar.Client(target, deadline=BOUND) as client:
        with pytest.raises(samovar.SamovarError) as error:
            list(client.send("Hello"))
        assert error.value.reason == refusal.status.message.removeprefix("it is ")
    assert len(script.requests) == 1


def test_without_a_deadline_nothing_is_repeated() -> None:
    """Who sets no deadline decides for themselves."""
    script = Script(Refusal("NO_PROCESS", 0.01))
    with playing(script) as target, samovar.Client(target) as client:
        with pytest.raises(samovar.NoProcess) as error:
            list(client.send("Hello"))
        assert error.value.retry_delay == 0.01


@pytest.mark.parametrize("reason", [reason for reason in REASONS if reason != REPEATED])
def test_every_reason_has_a_class(reason: str) -> None:
    """Each reason of the contract is an error class of its own."""
    script = Script(Refusal(reason, code=3))
    with playing(script) as target, samovar.Client(target) as client:
        with pytest.raises(errors.BY_REASON[reason]) as error:
            list(client.send("Hello"))
        assert type(error.value) is not samovar.SamovarError
        assert error.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_an_unknown_reason_goes_by_its_code() -> None:
    """A reason that this version does not know is the base class, with its code."""
    with playing(Script(Refusal("NEW", code=8))) as target, samovar.Client(target) as client:
        with pytest.raises(samovar.SamovarError) as error:
            list(client.send("Hello"))
        assert type(error.value) is samovar.SamovarError
        assert error.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_every_kind_of_event_is_read() -> None:
    """The client knows each kind of event that the contract of its version has."""
    kinds = {field.name for field in pb.Event.DESCRIPTOR.oneofs_by_name["kind"].fields}
    assert events._READERS.keys() == kinds


def test_a_state_of_a_later_service_is_kept() -> None:
    """A session whose state is not known can be read."""
    number: Any = 99
    assert turns.session(pb.SessionInfo(state=number)).state == "unknown_99"


def test_unknown_kinds_and_values_are_skipped_or_kept() -> None:
    """An event of a kind that is not known is skipped; an unknown value of an enum is kept."""
    unknown = pb.Event.FromString(b"\x08\x02" + bytes([0xFA, 0x3E, 0x00]))
    end = finished()
    end.turn_finished.outcome = 99  # type: ignore[assignment]
    end.turn_finished.failure_cause = 99  # type: ignore[assignment]
    with playing(Script([started(), unknown, end])) as target, samovar.Client(target) as client:
        _, last = client.send("Hello")
    assert isinstance(last, samovar.TurnFinished)
    assert (last.outcome, last.failure_cause) == (99, 99)


def test_causes_of_failures_are_the_contracts() -> None:
    """Client and contract have the same names and numbers."""
    told = {f"FAILURE_CAUSE_{cause.name}": cause.value for cause in samovar.FailureCause}
    assert told == dict(pb.TurnFinished.FailureCause.items())


def test_leaving_the_loop_cancels_the_call() -> None:
    """Breaking out of a turn's `with` ends the call at once."""
    script = Script([started(), said("a")], hold=True)
    with playing(script) as target, samovar.Client(target) as client:
        with client.send("Hello") as turn:
            for _ in turn:
                break
        assert script.gone.wait(BOUND)


def test_dropping_the_iterator_cancels_the_call() -> None:
    """So does forgetting it."""
    script = Script([started(), said("a")], hold=True)
    with playing(script) as target, samovar.Client(target) as client:
        next(client.send("Hello"))
        assert script.gone.wait(BOUND)


def test_too_large_a_request_is_refused_before_the_call() -> None:
    """More than 8 MiB never leave."""
    script = Script()
    with playing(script) as target, samovar.Client(target) as client:
        with pytest.raises(samovar.RequestInvalid):
            client.send("x" * (8 << 20))
    assert not script.requests


def test_a_key_is_not_sent_in_the_clear() -> None:
    """An API key goes over TLS or stays on this machine."""
    with pytest.raises(ValueError, match="TLS"):
        samovar.Client("samovar.example:443", api_key="k")
    samovar.Client("samovar.example:443", api_key="k", tls=True).close()


def test_content_is_text_images_and_documents() -> None:
    """A message may have several blocks of several kinds."""
    script = Script([finished()])
    with playing(script) as target, samovar.Client(target) as client:
        list(client.send(["look", samovar.Image(b"png"), samovar.Document(b"pdf", "t")]))
    kinds = [content.WhichOneof("kind") for content in script.requests[0].content]
    assert kinds == ["text", "image", "document"]


def test_the_asynchronous_client_does_the_same() -> None:
    """Typed events, a repeated refusal, and a cancelled call from asyncio."""

    async def story(target: str, script: Script) -> None:
        async with samovar.AsyncClient(target, deadline=BOUND) as client:
            assert (await client.ask("Hello")).text == "x"
            script.hold = True
            async with client.send("Hello") as turn:
                assert isinstance(await anext(turn), samovar.TurnStarted)
        assert await asyncio.to_thread(script.gone.wait, 10)

    script = Script(Refusal("NO_PROCESS", 0.01), [started(), finished("x")], [started()])
    with playing(script) as target:
        asyncio.run(story(target, script))
    assert len({request.turn_id for request in script.requests[:2]}) == 1


def in_thread(work: Callable[[], Any]) -> Any:
    return asyncio.to_thread(work)


def test_the_synchronous_client_on_the_real_service(directory: Path) -> None:
    """Wait for it, ask, go on with the same session, look at it and close it."""

    def story(address: str) -> list[str]:
        with samovar.Client(address, deadline=BOUND) as client:
            client.wait(BOUND)
            assert client.health() == "serving"
            said = [client.ask(f"Say {word}", session="s").text for word in ("a", "b")]
            said += [session.session_id for session in client.list_sessions()]
            assert client.get_session("s").turn_count == 2
            assert client.close_session("s")
            return said

    async def served() -> None:
        async with serving(directory) as run:
            assert await in_thread(lambda: story(run.address)) == ["a", "b", "s"]

    asyncio.run(served())


def test_the_synchronous_client_answers_what_it_is_asked(directory: Path) -> None:
    """A tool is allowed, changed and denied; what is over raises; both kinds of event are told."""

    def story(address: str) -> None:
        with samovar.Client(address, deadline=BOUND) as client:
            asks = [v.permission(), v.permission(), v.permission()]
            told: list[samovar.Event] = []
            with client.send(fake(*asks), session="s", permission_policy="ask") as turn:
                for event in turn:
                    told.append(event)
                    if isinstance(event, samovar.PermissionRequested):
                        asks.pop()
                        answer(client, event, len(asks))
            results = [event.text for event in told if isinstance(event, samovar.ToolResult)]
            assert results == ['{"file_path": "note.txt"}', '{"b": 1}', "no"]
            with pytest.raises(samovar.PermissionNotFound):
                client.allow("p", "s")
            with pytest.raises(ValueError, match="deny or ask"):
                client.send("Hello", permission_policy="allow")

    def answer(client: samovar.Client, event: samovar.PermissionRequested, left: int) -> None:
        if left == 2:
            client.allow(event.permission_id, "s")
        elif left == 1:
            client.allow(event.permission_id, "s", updated_input={"b": 1})
        else:
            client.deny(event.permission_id, "s", message="no")

    async def served() -> None:
        profile = {"model": "haiku", "allow_ask": True, "allow_rewrite": True}
        async with serving(directory, fake=True, profiles={"default": profile}) as run:
            await in_thread(lambda: story(run.address))

    asyncio.run(served())


def test_the_keywords_are_those_that_are_read() -> None:
    """What type checkers know, what is read and what the page explains are the same keywords."""
    read = typing.get_type_hints(requests.Options)
    assert typing.get_type_hints(samovar.SendOptions) == read
    page = (Path(__file__).parents[2] / "docs" / "python.md").read_text()
    rows = re.findall(r"^\| (`[^|]*`) \|", page.partition("## Options")[2], re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(rows)) == list(read)


def test_a_keyword_that_does_not_exist_is_refused() -> None:
    """By the type checker, which finds an unused comment here otherwise, and by the call."""
    client, operand = samovar.Client("localhost:1"), samovar.AsyncClient("localhost:1")
    for method in (client.send, client.ask):
        with pytest.raises(TypeError, match="modle"):
            method("x", modle="opus")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="modle"):
        operand.send("x", modle="opus")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="modle"):
        asyncio.run(operand.ask("x", modle="opus"))  # type: ignore[call-arg]
