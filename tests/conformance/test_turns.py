"""Turns from their prompt to their answer, with each language's client."""

import json
from pathlib import Path
from typing import Any

from fake_claude import fake
from fake_claude import verbs as v
from support.program import Program
from support.scripted_server import Script, finished, playing, said, started
from support.timeouts import BOUND

from conformance.driving import Client, Driver, Line
from conformance.services import Beside, talking
from samovar.v1 import session_pb2 as pb
from samovard.standin import script, text, tool

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256))
PDF = b"%PDF-1.7\n" + bytes(range(256))
MEGABYTES = 3_000_000
PIECE = 100_000


def texts(events: list[Line]) -> list[str]:
    """Return the pieces of text."""
    return [event["text"] for event in events if event["kind"] == "text_delta"]


def check_whole(events: list[Line]) -> None:
    """Check that each event came once, from the first to the last."""
    assert [event["sequence"] for event in events] == [*range(1, len(events) + 1)]
    assert events[0]["kind"] == "turn_started"
    assert events[-1]["kind"] == "turn_finished"


def test_an_answer_is_text(client: Client) -> None:
    """A turn is run for its answer."""
    answer = client.ask("Say hello", session="text", turn_id="8f14e45f-ceea-4e7a-9c3b-2d1f5a6b7c8d")
    assert answer["text"] == "hello"
    assert (answer["session"], answer["outcome"]) == ("text", "completed")
    assert answer["turn_id"] == "8f14e45f-ceea-4e7a-9c3b-2d1f5a6b7c8d"
    assert answer["usage"]["output_tokens"] > 0
    assert answer["timings"]["receive_time"] <= answer["timings"]["finish_time"]


def test_a_client_makes_turn_ids(client: Client) -> None:
    """A turn without an id gets one from the client."""
    first, second = (client.ask("Say hello", session="ids")["turn_id"] for _ in range(2))
    assert first != second


def test_a_stream_is_whole(client: Client) -> None:
    """A stream has every event of its turn, in order."""
    events = client.send("Say hello", session="stream").events()
    check_whole(events)
    assert events[0]["session_id"] == "stream"
    assert events[0]["start_mode"] in ("cold", "spare")
    assert "".join(texts(events)) == "hello"
    assert (events[-1]["outcome"], events[-1]["result"]) == ("completed", "hello")


def test_text_comes_in_pieces(client: Client) -> None:
    """Text comes in pieces, unless whole blocks are asked for."""
    prompt = fake(v.deltas(5))
    whole = "".join(v.delta_text(number, 8) for number in range(5))
    pieces = client.send(prompt, session="deltas").events()
    blocks = client.send(prompt, session="deltas", partial=False).events()
    assert "".join(texts(pieces)) == whole
    assert len(texts(pieces)) > 1
    assert texts(blocks) == [whole]


def test_text_may_be_in_any_script(client: Client) -> None:
    """Text outside of ASCII, and of the basic plane, arrives as it was sent."""
    words = 'naïve 水壺 самовар 😀 e\u0301 \u2028 "quoted" \\ </script>'
    assert client.ask(fake(v.text(words)), session="unicode")["text"] == words
    assert client.ask(f"Say {words}", session="unicode")["text"] == words


def test_an_answer_may_be_large(client: Client) -> None:
    """An answer of 3 MB is whole, although its result is cut."""
    prompt = fake(v.deltas(MEGABYTES // PIECE, PIECE))
    answer = client.ask(prompt, session="large", partial=True)["text"]
    assert answer == "".join(v.delta_text(n, PIECE) for n in range(MEGABYTES // PIECE))


def test_files_are_sent(driver: Driver, directory: Path) -> None:
    """Images and documents are sent with their media types."""
    (directory / "a.png").write_bytes(PNG)
    (directory / "b.pdf").write_bytes(PDF)
    content = [
        {"image": str(directory / "a.png")},
        {"image": str(directory / "a.png"), "media_type": "image/webp"},
        {"document": str(directory / "b.pdf"), "title": "Bericht"},
        {"text": "ab", "times": 3},
    ]
    asked = Script([started(), finished("seen")])
    with playing(asked) as target, driver.client(target) as client:
        assert client.call("ask", content=content).done()["text"] == "seen"
    first, second, third, fourth = asked.requests[0].content
    assert first.image == pb.Content.Image(media_type="image/png", data=PNG)
    assert second.image == pb.Content.Image(media_type="image/webp", data=PNG)
    assert third.document == pb.Content.Document(
        media_type="application/pdf", data=PDF, title="Bericht"
    )
    assert fourth.text == "ababab"


def test_a_tool_is_used(client: Client) -> None:
    """A tool that needs no permission is an event, and its result another."""
    events = client.send(fake(v.tool(), v.text("used")), session="tool").events()
    check_whole(events)
    (use,) = (event for event in events if event["kind"] == "tool_use")
    (result,) = (event for event in events if event["kind"] == "tool_result")
    assert use["tool_name"] == "Bash"
    assert json.loads(use["input_json"])
    assert result["tool_use_id"] == use["tool_use_id"]


def test_a_turn_is_followed_by_another_client(
    driver: Driver, service: Program, client: Client
) -> None:
    """Another client follows a turn from any event on."""
    events = client.send("Say on", session="followed").events()
    which = {"turn_id": events[0]["turn_id"], "session": "followed"}
    with driver.client(service.address) as other:
        assert other.call("attach", **which).events() == events
        assert other.call("attach", **which, after_sequence=1).events() == events[1:]
        last = events[-1]["sequence"]
        assert other.call("attach", **which, after_sequence=last).events() == []


def test_kinds_and_values_that_are_not_known(driver: Driver) -> None:
    """An event of an unknown kind is skipped, and an unknown value of an enum is kept."""
    unknown = pb.Event.FromString(b"\x08\x02" + bytes([0xFA, 0x3E, 0x00]))
    cause: Any = 99
    end = finished("x", outcome=cause, failure_cause=cause, sequence=4)
    with playing(Script([started(), unknown, said("x", 3), end])) as target:
        with driver.client(target) as client:
            events = client.send("Hello").events()
    assert [event["sequence"] for event in events] == [1, 3, 4]
    assert (events[-1]["outcome"], events[-1]["failure_cause"]) == ("unknown_99", "unknown_99")


def test_the_agents_failure(client: Client) -> None:
    """A failure of the agent is an event of a stream, and fails a call for an answer."""
    prompt = fake(v.api_error(529))
    last = client.send(prompt, session="failing").events()[-1]
    assert (last["outcome"], last["failure_cause"]) == ("failed", "overloaded")
    content = [{"text": prompt}]
    failed = client.call("ask", content=content, options={"session": "failing"}).failed()
    assert failed["kind"] == "turn_failed"
    for name in ("errors", "upstream_status", "upstream_retry_delay", "failure_cause"):
        assert failed[name] == last[name]


def test_a_whole_conversation(driver: Driver, directory: Path) -> None:
    """A conversation with the real CLI: text, a file, a tool, an interrupt, and on."""
    (directory / "a.png").write_bytes(PNG)

    def talk(service: Beside) -> None:
        with driver.client(service.address, deadline=BOUND) as client:
            options = {"session": "s", "permission_policy": "ask"}
            assert client.ask("Say hello", **options)["text"] == "hello"
            image = [{"image": str(directory / "a.png")}, {"text": "Say seen"}]
            seen = client.call("ask", content=image, options=options).done()
            assert seen["text"] == "seen"
            write = tool("Write", {"file_path": "note.txt", "content": "hi"})
            content = [{"text": script(write, text("written"))}]
            asked = client.call("ask", content=content, options=options, permissions=True)
            assert asked.done()["text"] == "written"
            turn = client.send(script({"drip": 10_000, "seconds": 0.02, "word": "tick"}), **options)
            begun = turn.until("text_delta")
            which = {"turn_id": begun[0]["turn_id"], "session": "s"}
            assert client.call("interrupt", **which).done() == {"was_running": True}
            assert turn.events()[-1]["outcome"] == "interrupted"
            assert client.ask("Say on", **options)["text"] == "on"
            session = client.call("get_session", session="s").done()
            assert (session["state"], session["turn_count"]) == ("warm", 5)
            assert client.call("close_session", session="s").done() == {"existed": True}

    profile = {"model": "haiku", "tools": ["Write"], "allow_ask": True}
    talking(directory, talk, fake=False, profiles={"default": profile})
