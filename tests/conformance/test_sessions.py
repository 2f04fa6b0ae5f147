"""Sessions, health and traces, with each language's client."""

from pathlib import Path
from typing import Any

from support.otlp_collector import collecting
from support.scripted_server import Script, finished, playing, started

from conformance.driving import Client, Driver
from conformance.services import Beside, talking
from samovar.v1 import session_pb2 as pb

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PAGES = 3
EACH = 2
SEND = "samovar.v1.Session/Send"


class Control(Script):
    """A script that also answers calls beside turns."""

    def __init__(self, *steps: Any) -> None:
        super().__init__(*steps)
        self.limits: list[float] = []

    def ListSessions(self, request: pb.ListSessionsRequest, context: Any) -> Any:
        self._take(request, context)
        page = int(request.page_token or "0")
        names = [f"s{EACH * page + number}" for number in range(EACH)]
        after = str(page + 1) if page + 1 < PAGES else ""
        return pb.ListSessionsResponse(
            sessions=[pb.SessionInfo(session_id=name) for name in names], next_page_token=after
        )

    def GetSession(self, request: pb.GetSessionRequest, context: Any) -> Any:
        self._take(request, context)
        state: Any = 99
        return pb.GetSessionResponse(session=pb.SessionInfo(session_id="s", state=state))

    def CloseSession(self, request: pb.CloseSessionRequest, context: Any) -> Any:
        self._take(request, context)
        return pb.CloseSessionResponse()

    def Interrupt(self, request: pb.InterruptRequest, context: Any) -> Any:
        self._take(request, context)
        return pb.InterruptResponse()

    def Respond(self, request: pb.RespondRequest, context: Any) -> Any:
        self._take(request, context)
        return pb.RespondResponse()

    def _take(self, request: Any, context: Any) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        self.limits.append(context.time_remaining())


def test_sessions_are_read_and_closed(client: Client) -> None:
    """A session can be read, is listed, and can be closed."""
    client.ask("Say hello", session="read", labels={"shop": "berlin"})
    session = client.call("get_session", session="read").done()
    assert (session["session_id"], session["state"]) == ("read", "warm")
    assert (session["profile"], session["turn_count"]) == ("default", 1)
    assert session["usage"]["output_tokens"] > 0
    assert session["create_time"] <= session["update_time"] < session["expire_time"]
    assert session in client.call("list_sessions").done()["sessions"]
    assert client.call("close_session", session="read").done() == {"existed": True}
    assert client.call("close_session", session="read").done() == {"existed": False}
    assert client.call("get_session", session="read").failed()["kind"] == "session_not_found"


def test_sessions_are_listed_page_by_page(driver: Driver) -> None:
    """All pages of the sessions are read, each by the token of the one before."""
    script = Control()
    with playing(script) as target, driver.client(target) as client:
        found = client.call("list_sessions").done()["sessions"]
    assert [session["session_id"] for session in found] == [f"s{n}" for n in range(PAGES * EACH)]
    assert [request.page_token for request in script.requests] == ["", "1", "2"]


def test_a_state_that_is_not_known(driver: Driver) -> None:
    """A session's state of a later service is kept."""
    with playing(Control()) as target, driver.client(target) as client:
        assert client.call("get_session").done()["state"] == "unknown_99"


def test_calls_beside_turns_are_bounded(driver: Driver) -> None:
    """Calls beside turns carry the session and the credential, and have a deadline of 30 s."""
    script = Control()
    with playing(script) as target, driver.client(target, credential="key") as client:
        client.call("get_session", session="s").done()
        client.call("close_session", session="s").done()
        client.call("interrupt", session="s", turn_id="t").done()
        client.call("allow", session="s", permission_id="p").done()
        client.call("deny", session="s", permission_id="p", message="no").done()
        client.call("list_sessions").done()
    assert all(0 < limit < 31 for limit in script.limits)  # gRPC rounds up
    assert {metadata["authorization"] for metadata in script.metadata} == {"Bearer key"}
    names = [metadata["session-id"] for metadata in script.metadata]
    assert names == ["s"] * 5 + ["default"] * PAGES


def test_health(client: Client) -> None:
    """The health of a service that serves; one that is not there is a failure."""
    assert client.call("health").done() == {"status": "serving"}
    failed = client.call("health", service="samovar.v1.Nothing").failed()
    assert (failed["kind"], failed["code"]) == ("call_broken", "NOT_FOUND")


def test_a_turn_is_in_the_callers_trace(driver: Driver, directory: Path) -> None:
    """A turn's span is below the caller's: the trace has one id on both sides."""

    def talk(service: Beside) -> None:
        with driver.client(service.address) as client:
            content = [{"text": "Say traced"}]
            parent = f"00-{TRACE}-{SPAN}-01"
            assert client.call("ask", content=content, traceparent=parent).done()["text"]
            service.ask(collector.until(lambda: collector.named(SEND)))
        span = collector.one(SEND)
        assert (span.trace_id, span.parent) == (TRACE, SPAN)

    with collecting() as collector:
        talking(directory, talk, telemetry={"endpoint": collector.grpc_url})


def test_the_active_span_is_sent(driver: Driver) -> None:
    """`traceparent` is that of the active span; without one there is none."""
    script = Script(*[[started(), finished(sequence=2)]] * 2)
    parent = f"00-{TRACE}-{SPAN}-00"
    with playing(script) as target, driver.client(target) as client:
        content = [{"text": "Hello"}]
        client.call("send", content=content, traceparent=parent).events()
        client.call("send", content=content).events()
    first, second = script.metadata
    assert first["traceparent"] == parent
    assert "traceparent" not in second
