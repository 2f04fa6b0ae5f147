"""Which frames are a turn's, and when a CLI is quiet: over recordings and made-up lines."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.recordings import NAMES, encoded, recording

from samovard.agent import window
from samovard.agent.codec import Decoder
from samovard.agent.window import Update, Window
from samovard.core.events import (
    Outcome,
    PermissionRequested,
    PermissionResolved,
    Resolution,
    TextDelta,
    Usage,
)
from samovard.core.process import Broken, Doing, EventOptions, Prompt, Text

NOW = 1_700_000_000.0
U, OTHER, SESSION = "turn-u", "turn-x", "session"

#: What each recording comes to: events and outcomes in order, `*n` for n in a row.
TOLD: dict[str, str] = json.loads(Path(__file__).with_name("window_updates.json").read_text())


class Teller:
    """Puts down what a window makes of lines."""

    def __init__(self, session: str) -> None:
        self.window = Window(session, asks=True)
        self.decoder = Decoder(1 << 20)
        self.told: list[str] = []
        self.quiet = True

    def write(self, line: dict[str, Any]) -> None:
        if line["type"] == "user":
            options = EventOptions(partial=True, thinking=True)
            self.window.open(Prompt(line.get("uuid", "?"), (Text(b"x"),), options))
            self.tell("open")
        elif line["type"] == "control_request" and line["request"]["subtype"] == "interrupt":
            self.window.interrupting(line["request_id"])
            self.tell("interrupt")

    def read(self, line: dict[str, Any]) -> None:
        update = self.window.take(self.decoder.feed(encoded(line)))
        self.tell(*(type(event).__name__ for event in update.events))
        self.tell(*("unasked" for _ in update.to_deny))
        if update.finished is not None:
            self.tell(update.finished.outcome.name)
        if update.already_run:
            self.tell("already-run")
        self.tell(*("unsolicited" for _ in range(update.unsolicited)))
        if self.window.quiet and not self.quiet:
            self.told.append("quiet")
            self.quiet = True

    def tell(self, *words: str) -> None:
        for word in words:
            self.quiet = False
            last, _, count = self.told[-1].partition("*") if self.told else ("", "", "")
            if last == word:
                self.told[-1] = f"{word}*{int(count or 1) + 1}"
            else:
                self.told.append(word)


def test_every_recording_is_in_the_table() -> None:
    """No recording is left out."""
    assert sorted(TOLD) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_told_as_it_was(name: str) -> None:
    """Over the real CLI's traffic: what reaches the turn, what does not, and what is quiet."""
    teller = Teller(recording(name).session)
    for way, line in recording(name).lines:
        (teller.write if way == "in" else teller.read)(line)
    assert " ".join(teller.told) == TOLD[name]


def test_what_a_turn_without_a_report_has_used_is_known() -> None:
    """By the usage of the messages that were begun, the last as far as it came; what was
    reported counts no more."""
    teller, seen = Teller(recording("kill-mid-turn").session), []
    for way, line in recording("kill-mid-turn").lines:
        (teller.write if way == "in" else teller.read)(line)
        seen.append(teller.window.spent)
    assert Usage(input_tokens=10, output_tokens=12) in seen  # the first turn, before its report
    assert seen[-1] == Usage(input_tokens=10, output_tokens=1)


def lifecycle(state: str, turn: str = U) -> dict[str, Any]:
    return line("command_lifecycle", command_uuid=turn, state=state)


def line(type: str, **fields: Any) -> dict[str, Any]:
    return {"type": type, "session_id": SESSION, **fields}


def result(*turns: str, **fields: Any) -> dict[str, Any]:
    return line(
        "result",
        **{
            "user_message_uuids": turns,
            "terminal_reason": "completed",
            "result": "done",
            "num_turns": 1,
            **fields,
        },
    )


def state(name: str) -> dict[str, Any]:
    return line("system", subtype="session_state_changed", state=name)


def says(text: str, message: str = "m") -> dict[str, Any]:
    content = [{"type": "text", "text": text}]
    return line("assistant", message={"id": message, "model": "m", "content": content})


def ack(request: str = "i", **receipt: Any) -> dict[str, Any]:
    response = {"still_queued": [], "cancelled": [], **receipt}
    body = {"subtype": "success", "request_id": request, "response": response}
    return {"type": "control_response", "response": body}


class Talk:
    """A window with one open turn, and what it makes of lines."""

    def __init__(self, *, asks: bool = False) -> None:
        self.window = Window(SESSION, asks=asks, mode="dontAsk", wall=lambda: NOW)
        self.decoder = Decoder(1 << 20)
        self.window.open(Prompt(U, (Text(b"x"),)))

    def hear(self, *lines: dict[str, Any]) -> Update:
        return self.window.take(self.decoder.feed(b"".join(map(encoded, lines))))


TURN = (state("running"), lifecycle("queued"), lifecycle("started"))


def test_a_turn_is_what_lies_between_its_own_lines() -> None:
    """Text before `started` and after the end is nobody's."""
    talk = Talk()
    update = talk.hear(says("before"), *TURN, says("mine"), result(U), lifecycle("completed"))
    assert [e.text for e in update.events if isinstance(e, TextDelta)] == ["mine"]
    assert update.finished is not None
    assert update.finished.result == "done"
    assert update.unsolicited == 1
    assert talk.hear(says("after")).unsolicited == 1


def test_what_an_agent_does_is_told_only_when_it_is_news() -> None:
    """A sign of life without progress says nothing; a new step says what it does."""
    talk = Talk()
    assert talk.hear(*TURN, says("mine")).doing is Doing.MODEL
    assert talk.hear({"type": "keep_alive"}).doing is None
    retry = {"type": "system", "subtype": "api_retry", "retry_delay_ms": 5000}
    waiting = talk.hear(retry | {"session_id": SESSION})
    assert (waiting.doing, waiting.waits) == (Doing.MODEL, 5.0)
    step = {"type": "stream_event", "event": {"type": "message_start", "message": {"id": "n"}}}
    update = talk.hear(step | {"session_id": SESSION})
    assert (update.doing, update.progress) == (Doing.MODEL, False)


def test_a_result_of_another_message_has_no_effect() -> None:
    """A late result of an earlier turn does not end this one."""
    talk = Talk()
    update = talk.hear(*TURN, result(OTHER, result="theirs"))
    assert update.finished is None
    assert update.unsolicited == 1
    late = talk.hear(result(U)).finished
    assert late is not None
    assert late.result == "done"


def test_a_second_result_has_no_effect() -> None:
    """A turn has one report."""
    talk = Talk()
    assert talk.hear(*TURN, result(U)).finished is not None
    update = talk.hear(result(U, result="again"))
    assert (update.finished, update.unsolicited) == (None, 1)


def test_a_result_without_its_end_is_not_quiet() -> None:
    """The CLI is not quiet before the end frame, nor before it says that it is idle."""
    talk = Talk()
    talk.hear(*TURN, result(U))
    assert not talk.window.quiet
    talk.hear(lifecycle("completed"))
    assert not talk.window.quiet
    talk.hear(state("idle"))
    assert talk.window.quiet


def test_a_frame_of_another_session_breaks_everything() -> None:
    """Nothing from it on is interpreted."""
    talk = Talk()
    foreign = says("secret") | {"session_id": "somebody's"}
    update = talk.hear(*TURN, foreign, says("mine"), result(U))
    assert update.broken is Broken.FOREIGN
    assert (update.events, update.finished) == ([], None)


def interrupted() -> Talk:
    talk = Talk()
    talk.hear(*TURN)
    talk.window.interrupting("i")
    return talk


ABORTED = (
    result(U, terminal_reason="aborted_streaming", is_error=True),
    lifecycle("cancelled"),
    state("idle"),
)


def test_an_interrupt_is_proven_by_answer_report_and_end() -> None:
    """All of it, in any order of the answer, makes it quiet; less does not."""
    for lines in ((ack(), *ABORTED), (*ABORTED, ack())):
        talk = interrupted()
        for one in lines[:-1]:
            talk.hear(one)
            assert not talk.window.quiet
        talk.hear(lines[-1])
        assert talk.window.quiet


@pytest.mark.parametrize(
    "answer",
    [
        ack("another"),
        ack(still_queued=[U]),
        {"type": "control_response", "response": {"subtype": "error", "request_id": "i"}},
    ],
)
def test_another_answer_is_no_proof(answer: dict[str, Any]) -> None:
    """The answer must be this interrupt's, a success, and leave nothing queued."""
    talk = interrupted()
    talk.hear(answer, *ABORTED)
    assert not talk.window.quiet


def test_a_withdrawn_message_needs_its_receipt() -> None:
    """A message that never started is reported as interrupted, and proven withdrawn only if
    the answer says so."""
    for cancelled, quiet in (([U], True), ([], False)):
        talk = Talk()
        talk.window.interrupting("i")
        update = talk.hear(lifecycle("queued"), lifecycle("cancelled"))
        assert update.finished is not None
        assert update.finished.outcome is Outcome.INTERRUPTED
        talk.hear(ack(cancelled=cancelled), state("idle"))
        assert talk.window.quiet is quiet


def test_background_work_is_not_quiet() -> None:
    """While a task runs in the background nothing is proven."""
    talk = Talk()
    tasks = {"subtype": "background_tasks_changed"}
    talk.hear(*TURN, line("system", **tasks, tasks=[{"task_id": "1"}]))
    talk.hear(result(U), lifecycle("completed"), state("idle"))
    assert not talk.window.quiet
    talk.hear(line("system", **tasks, tasks=[]))
    assert talk.window.quiet


def test_somebody_elses_message_is_not_quiet() -> None:
    """A message that nobody of ours wrote is unsolicited, and quiet only once it is over."""
    talk = Talk()
    talk.hear(*TURN, result(U), lifecycle("completed"), state("idle"))
    assert talk.hear(lifecycle("started", OTHER), says("x")).unsolicited == 2
    assert not talk.window.quiet
    talk.hear(lifecycle("completed", OTHER))
    assert talk.window.quiet


def test_a_lost_line_is_never_quiet_again() -> None:
    """A gap in the numbers of results means that a line is missing."""
    talk = Talk()
    talk.hear(*TURN, result(U, result_index=1), lifecycle("completed"), state("idle"))
    assert not talk.window.quiet


def init(**fields: Any) -> dict[str, Any]:
    told = {"cwd": "/work", "permissionMode": "dontAsk"} | fields
    return line("system", subtype="init", **told)


@pytest.mark.parametrize("other", [{"cwd": "/else"}, {"permissionMode": "default"}])
def test_an_agent_that_is_not_what_was_started_is_never_quiet_again(other: dict[str, Any]) -> None:
    """Another directory than before, or another permission mode than asked for."""
    talk = Talk()
    end = (result(U), lifecycle("completed"), state("idle"))
    talk.hear(*TURN, init(), *end)
    assert talk.window.quiet
    talk.window.open(Prompt(U, (Text(b"x"),)))
    talk.hear(*TURN, init(**other), result(U, result_index=1), *end[1:])
    assert not talk.window.quiet


def test_when_the_api_takes_requests_again_is_told_as_a_delay() -> None:
    """The CLI says when, by the wall clock; of several, the last counts."""
    talk = Talk()
    limits = [
        {"status": "rejected", "resetsAt": NOW + 900},
        {"status": "rejected", "resetsAt": NOW + 60},
        {"status": "allowed", "resetsAt": NOW + 5},
    ]
    lines = [line("rate_limit_event", rate_limit_info=info) for info in limits]
    failed = result(U, terminal_reason="api_error", is_error=True, api_error_status=429)
    update = talk.hear(*TURN, *lines, failed)
    assert update.finished is not None
    assert update.finished.upstream_retry_delay == 60.0


def test_the_report_has_its_line() -> None:
    """If lines are told, the report's is, too."""
    talk = Talk()
    talk.window.open(Prompt(U, (Text(b"x"),), EventOptions(raw_json=True)))
    update = talk.hear(*TURN, result(U))
    assert update.finished is not None
    assert update.finished.raw + b"\n" == encoded(result(U))
    assert update.finished.raw_bytes == len(update.finished.raw)


def asks(request: str = "p", tool: str = "toolu_1", **asked: Any) -> dict[str, Any]:
    body = {"subtype": "can_use_tool", "tool_name": "Write", "tool_use_id": tool, **asked}
    return {"type": "control_request", "request_id": request, "request": body}


def cancels(request: str = "p") -> dict[str, Any]:
    return {"type": "control_cancel_request", "request_id": request}


def test_requests_are_sorted_by_what_they_ask() -> None:
    """Permissions that nobody is asked about and other requests are handed on to be answered,
    also one of a shape that is not known."""
    strange = asks("s", input={}) | {"request": {"subtype": 7}}
    hook = {"type": "control_request", "request_id": "q", "request": {"subtype": "hook_callback"}}
    update = Talk().hear(*TURN, asks("p"), hook, strange)
    assert update.to_deny == ["p"]
    assert update.requests == ["q", "s"]
    assert update.events == []


def test_a_permission_is_asked_only_within_the_turn() -> None:
    """Before the turn, behind its report and after its end nobody is asked."""
    talk = Talk(asks=True)
    assert talk.hear(asks("a"), *TURN).to_deny == ["a"]
    update = talk.hear(asks("b", input={"é": 1}, decision_reason="outside"))
    (event,) = update.events
    assert isinstance(event, PermissionRequested)
    assert (event.permission_id, event.input_json) == ("b", '{"\\u00e9":1}')
    assert (event.tool_name, event.reason, event.title) == ("Write", "outside", "")
    assert talk.hear(result(U), asks("c")).to_deny == ["c"]
    assert talk.hear(lifecycle("completed"), asks("d")).to_deny == ["d"]


def test_a_permission_is_answered_once() -> None:
    """What was answered, withdrawn or never asked has nothing to answer; nor has an earlier
    turn's."""
    talk = Talk(asks=True)
    talk.hear(*TURN, asks("a"), asks("b"), asks("c"))
    asked = talk.window.answered("a")
    assert asked is not None
    assert asked.tool_name == "Write"
    assert talk.window.answered("a") is None
    (event,) = talk.hear(cancels("b"), cancels("a"), cancels("unknown")).events
    assert event == PermissionResolved("b", Resolution.WITHDRAWN, raw_bytes=event.raw_bytes)
    assert talk.window.answered("b") is None
    talk.hear(result(U), lifecycle("completed"), state("idle"))
    talk.window.open(Prompt(OTHER, (Text(b"x"),)))
    assert talk.window.answered("c") is None


def test_inputs_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request beyond the bytes that may wait is denied at once."""
    monkeypatch.setattr(window, "MAX_ASKED", 1000)
    talk = Talk(asks=True)
    update = talk.hear(*TURN, asks("a", input={"x": "x" * 500}), asks("b", input={"x": "x" * 500}))
    assert (len(update.events), update.to_deny) == (1, ["b"])
    talk.window.answered("a")
    assert len(talk.hear(asks("c", input={"x": "x" * 500})).events) == 1


def test_a_question_that_is_withdrawn_behind_its_turn_tells_nobody() -> None:
    """An agent may end its turn while it asks; that it asks no more is no event of any turn."""
    talk = Talk(asks=True)
    talk.hear(*TURN, asks("p"), result(U), lifecycle("completed"), state("idle"))
    assert talk.hear(cancels("p")).events == []
    assert talk.window.quiet
