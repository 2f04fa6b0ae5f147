"""Turns that end before their time, with each language's client: interrupted, left, too late."""

import time
from collections.abc import Callable
from pathlib import Path

from fake_claude import fake
from fake_claude import verbs as v
from support.program import Program
from support.service import Running, until
from support.timeouts import BOUND

from conformance.driving import Client, Driver, Failed
from conformance.services import Beside, talking
from conformance.test_turns import check_whole

ENDLESS = fake(v.text("on"), v.hang())
FLOOD = 20_000
SMALL = {"reader_bytes": "64 KiB", "reader_timeout": "300 ms", "event_hold_bytes": "200 MiB"}
TURNS = 8


def eventually(condition: Callable[[], object]) -> None:
    """Ask again and again until a condition holds; each question is a round trip."""
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end, "it never came"


def outcome(client: Client, turn_id: str, session: str) -> str:
    """Return how a turn ended, once it has."""
    *_, last = client.call("attach", turn_id=turn_id, session=session).events()
    found: str = last["outcome"]
    return found


def test_a_turn_is_interrupted(client: Client) -> None:
    """`interrupt` ends a turn, and says whether it was still running."""
    turn = client.send(ENDLESS, session="interrupted")
    which = {"turn_id": turn.until("text_delta")[0]["turn_id"], "session": "interrupted"}
    assert client.call("interrupt", **which).done() == {"was_running": True}
    assert turn.events()[-1]["outcome"] == "interrupted"
    assert client.call("interrupt", **which).done() == {"was_running": False}
    assert client.ask("Say next", session="interrupted")["text"] == "next"


def test_leaving_a_stream_interrupts_its_turn(client: Client) -> None:
    """Leaving a stream early cancels its call, which interrupts the turn."""
    turn = client.send(ENDLESS, session="left")
    turn_id = turn.until("text_delta")[0]["turn_id"]
    turn.leave()
    assert turn.events() == []
    assert outcome(client, turn_id, "left") == "interrupted"


def test_a_loop_that_is_left_interrupts_its_turn(client: Client) -> None:
    """Leaving the loop over the events does the same."""
    content = [{"text": ENDLESS}]
    options = {"session": "loop"}
    (event,) = client.call("send", content=content, options=options, leave_after=1).events()
    assert outcome(client, event["turn_id"], "loop") == "interrupted"


def test_a_turn_may_run_on(client: Client) -> None:
    """With `keep_running`, leaving its stream does not end a turn."""
    turn = client.send(ENDLESS, session="on", keep_running=True)
    which = {"turn_id": turn.until("text_delta")[0]["turn_id"], "session": "on"}
    turn.leave()
    follows = client.call("attach", **which)
    assert follows.event()["kind"] == "turn_started"
    assert client.call("interrupt", **which).done() == {"was_running": True}
    assert follows.events()[-1]["outcome"] == "interrupted"


def test_a_deadline_ends_a_turn(client: Client) -> None:
    """A call fails at its deadline, which interrupts the turn."""
    id = "0b7b8f0e-1f5e-4c58-9a53-0d2f3c1e5a77"
    turn = client.send(ENDLESS, session="deadline", turn_id=id, deadline=2.0)
    failed = turn.failed()
    assert (failed["kind"], failed["reason"]) == ("deadline_exceeded", "")
    assert failed["code"] == "DEADLINE_EXCEEDED"

    def ended() -> bool:
        try:
            return outcome(client, id, "deadline") == "interrupted"
        except Failed as error:  # it never began: the machine was too slow
            return error.line["kind"] in ("turn_not_found", "session_not_found")

    eventually(ended)


def test_the_clients_deadline_is_that_of_its_turns(driver: Driver, service: Program) -> None:
    """A turn without a deadline has its client's."""
    with driver.client(service.address, deadline=0.5) as client:
        failed = client.send(ENDLESS, session="usual").failed()
        assert failed["kind"] == "deadline_exceeded"
        assert client.ask("Say on", session="usual", deadline=BOUND)["text"] == "on"


def test_a_slow_reader_misses_nothing(driver: Driver, directory: Path) -> None:
    """A stream that is dropped because it is not read goes on where it was, when it is read."""

    def talk(service: Beside) -> None:
        with driver.client(service.address) as client:
            content = [{"text": fake(v.events(FLOOD, size=300))}]
            options = {"keep_running": True, "deadline": BOUND}
            turn = client.call("send", content=content, options=options, hold_after=1)
            first = turn.event()
            turn.held()
            service.ask(until(lambda: not followed(service.run)))
            turn.go_on()
            events = [first, *turn.events()]
            check_whole(events)
            assert len(events) > FLOOD

    talking(directory, talk, server=SMALL)


def followed(run: Running) -> bool:
    """True if any turn has a stream."""
    sessions = run.service.sessions._directory._sessions.values()
    return any(c.turn.followed for s in sessions for c in s.runners.values())


def test_nothing_is_left_of_what_was_left(driver: Driver, service: Program) -> None:
    """Streams that were left early leave nothing running in the client."""
    with driver.client(service.address, deadline=BOUND) as client:
        client.ask("Say warm", session="left-0")
        baseline = driver.running()
        for number in range(TURNS):
            turn = client.send(ENDLESS, session=f"left-{number % 2}")
            turn.until("text_delta")
            turn.leave()
            assert turn.events() == []
        eventually(lambda: driver.running() <= baseline)


def test_a_closed_client_ends_its_streams(driver: Driver, service: Program) -> None:
    """Open streams of a client that is closed, and later calls, are `client_closed`."""
    with driver.client(service.address) as client:
        turn = client.send(ENDLESS, session="closed")
        turn.until("text_delta")
        assert client.call("close").done() == {}
        assert turn.failed()["kind"] == "client_closed"
        content = [{"text": "Say no"}]
        for call in (
            client.call("ask", content=content),
            client.call("send", content=content),
            client.call("get_session"),
            client.call("list_sessions"),
            client.call("interrupt", turn_id="t"),
            client.call("health"),
        ):
            assert call.failed()["kind"] == "client_closed"
