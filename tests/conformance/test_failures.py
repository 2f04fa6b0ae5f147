"""Calls that fail, with each language's client: refusals, statuses, and what is tried again."""

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from support.program import Program
from support.scripted_server import Break, Refusal, Script, finished, playing, said, started
from support.service import free_port
from support.timeouts import BOUND

from conformance.driving import Client, Driver
from conformance.test_turns import check_whole
from samovar.v1 import errors_pb2
from samovard.edge.status import CODES

REASONS = [
    name.removeprefix("ERROR_REASON_")
    for name, number in errors_pb2.ErrorReason.items()
    if number != errors_pb2.ERROR_REASON_UNSPECIFIED
]
#: A reason after which the client joins its stream again, as long as there is time.
JOINED_AGAIN = "READER_TOO_SLOW"
MEBIBYTE = 1 << 20
TURN = [started(), finished("x", sequence=2)]


def refused(driver: Driver, script: Script, **options: Any) -> dict[str, Any]:
    """Return how a turn fails on a scripted server."""
    with playing(script) as target, driver.client(target) as client:
        return client.send("Hello", **options).failed()


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_is_a_failure_of_its_own(driver: Driver, reason: str) -> None:
    """Each reason of the contract is a failure of its own, with all that the status says."""
    code = next(code for code in grpc.StatusCode if code.name == CODES[reason].name)
    refusal = Refusal(reason, code=code.value[0], promptWritten="true", cause="a-cause")
    bad = error_details_pb2.BadRequest(
        field_violations=[{"field": "content", "description": "is empty"}]
    )
    refusal.add(bad)
    joined = reason == JOINED_AGAIN
    options = {"deadline": 1.0} if joined else {}
    failed = refused(driver, Script(*[refusal] * (20 if joined else 1)), **options)
    assert failed == {
        "kind": reason.lower(),
        "reason": reason,
        "code": code.name,
        "message": f"it is {reason}",
        "prompt_written": True,
        "retry_delay": None,
        "metadata": {"promptWritten": "true", "cause": "a-cause"},
        "violations": [["content", "is empty"]],
    }


def test_a_reason_that_is_not_known(driver: Driver) -> None:
    """A reason of a later service is told as it is, with its code."""
    failed = refused(driver, Script(Refusal("TOO_TUESDAY", code=9)))
    assert (failed["kind"], failed["reason"]) == ("unrecognized", "TOO_TUESDAY")
    assert (failed["code"], failed["prompt_written"]) == ("FAILED_PRECONDITION", False)


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "UNAUTHENTICATED"])
def test_a_status_of_something_else(driver: Driver, code: str) -> None:
    """A status that the service did not make is `call_broken`, with its code."""
    failed = refused(driver, Script(Break(grpc.StatusCode[code])), deadline=BOUND)
    assert (failed["kind"], failed["reason"], failed["code"]) == ("call_broken", "", code)


def test_a_status_of_another_domain(driver: Driver) -> None:
    """A reason of another service's domain is none of ours."""
    refusal = Refusal("SESSION_BUSY", code=9)
    info = error_details_pb2.ErrorInfo(reason="SESSION_BUSY", domain="elsewhere")
    refusal.status.details[0].Pack(info)
    assert refused(driver, Script(refusal))["kind"] == "call_broken"


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "CANCELLED", "UNKNOWN"])
def test_a_call_that_breaks_is_made_again(driver: Driver, code: str) -> None:
    """A turn whose call breaks before its first event is sent again with the same id."""
    script = Script(Break(grpc.StatusCode[code]), TURN)
    with playing(script) as target, driver.client(target) as client:
        check_whole(client.send("Hello", deadline=BOUND).events())
    first, second = script.requests
    assert first == second
    assert first.turn_id


def test_a_refusal_that_passes_is_waited_for(driver: Driver) -> None:
    """A refusal with `RetryInfo` is repeated after its delay, with a deadline."""
    script = Script(Refusal("NO_PROCESS", 0.01), Refusal("QUEUE_FULL", 0.01, code=8), TURN)
    with playing(script) as target, driver.client(target) as client:
        check_whole(client.send("Hello", deadline=BOUND).events())
    first, *others = script.requests
    assert others == [first, first]


def test_a_refusal_without_a_deadline_is_told(driver: Driver) -> None:
    """A refusal with `RetryInfo` is raised with its delay, without a deadline."""
    script = Script(Refusal("NO_PROCESS", 1.5))
    failed = refused(driver, script)
    assert (failed["kind"], failed["retry_delay"]) == ("no_process", 1.5)
    assert len(script.requests) == 1


def test_a_refusal_past_the_deadline_is_told(driver: Driver) -> None:
    """A refusal whose delay is longer than the deadline is raised at once."""
    failed = refused(driver, Script(Refusal("NO_PROCESS", 10 * BOUND)), deadline=BOUND)
    assert failed["kind"] == "no_process"


def test_a_refusal_of_a_written_prompt_is_told(driver: Driver) -> None:
    """Nothing is repeated that was given to the agent, whatever `RetryInfo` says."""
    refusal = Refusal("NO_PROCESS", 0.01, promptWritten="true")
    assert refused(driver, Script(refusal), deadline=BOUND)["prompt_written"]


def test_a_refusal_after_the_first_event(driver: Driver) -> None:
    """A refusal with `RetryInfo` of a stream that is joined again is waited for."""
    steps = [started(), Break()], Refusal("NO_PROCESS", 0.01), [finished(sequence=2)]
    script = Script(*steps)
    with playing(script) as target, driver.client(target) as client:
        check_whole(client.send("Hello").events())
    assert [type(request).__name__ for request in script.requests[1:]] == ["AttachRequest"] * 2


def test_the_deadline_tells_what_failed_before(driver: Driver) -> None:
    """At the deadline, what failed before is raised instead, if a call failed."""
    late = Break(grpc.StatusCode.DEADLINE_EXCEEDED)
    script = Script([started(), Break()], Refusal("NO_PROCESS", 0.01), late)
    assert refused(driver, script, deadline=BOUND)["kind"] == "no_process"
    script = Script([started(), Break()], [said("a"), late])
    assert refused(driver, script, deadline=BOUND)["kind"] == "deadline_exceeded"


def test_a_service_that_is_not_there(driver: Driver) -> None:
    """Where nothing ever listened, a turn fails soon, however late its deadline is."""
    with driver.client(f"127.0.0.1:{free_port()}") as client:
        for options in ({}, {"deadline": 10 * BOUND}):
            failed = client.send("Hello", **options).failed()
            assert (failed["kind"], failed["code"]) == ("call_broken", "UNAVAILABLE")


def test_what_the_service_refuses(client: Client) -> None:
    """The service's refusals arrive, with the fields that are wrong."""
    failed = client.send("Hello", session="Not A Name").failed()
    assert (failed["kind"], failed["code"]) == ("request_invalid", "INVALID_ARGUMENT")
    assert [field for field, _ in failed["violations"]] == ["session_id"]
    failed = client.send("Hello", session="none", create=False).failed()
    assert (failed["kind"], failed["reason"]) == ("session_not_found", "SESSION_NOT_FOUND")
    assert client.call("get_session", session="none").failed()["kind"] == "session_not_found"


def test_a_request_that_is_too_large(driver: Driver) -> None:
    """A request of more than 8 MiB is refused by the client; one below it is sent."""
    script, whole = Script(TURN), [("grpc.max_receive_message_length", -1)]
    with playing(script, options=whole) as target, driver.client(target) as client:
        for size in (8 * MEBIBYTE, 9 * MEBIBYTE):
            failed = client.call("send", content=[{"text": "x", "times": size}]).failed()
            assert failed["kind"] == "request_invalid"
        assert not script.requests
        below = 8 * MEBIBYTE - 1024
        check_whole(client.call("send", content=[{"text": "x", "times": below}]).events())
        assert len(script.requests[0].content[0].text) == below


def test_values_that_mean_nothing(driver: Driver, service: Program) -> None:
    """Values without a meaning are refused by the client."""
    with driver.client(service.address) as client:
        assert client.send("x", permission_policy="maybe").failed()["kind"] == "invalid_argument"
        for options in ({"deadline": -1}, {"turn_timeout": -1}, {"max_agent_steps": -1}):
            kind = client.send("x", **options).failed()["kind"]
            assert kind in ("invalid_argument", "request_invalid")
