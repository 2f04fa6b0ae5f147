"""Which frames of a turn are progress, and what the agent does."""

from typing import Any

import msgspec
import pytest
from support.recordings import NAMES, encoded, recording

from samovard.agent import codec
from samovard.agent.progress import ProgressTracker
from samovard.core.process import Doing

CALL = {"type": "tool_use", "id": "u", "name": "Bash", "input": {}}
RETURN = {"type": "tool_result", "tool_use_id": "u", "content": "ok"}


def felt(*lines: dict[str, Any]) -> ProgressTracker:
    tracker = ProgressTracker()
    for line in lines:
        tracker.take(codec.decode(msgspec.json.encode(line)))
    return tracker


def delta(kind: str, **fields: Any) -> dict[str, Any]:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **fields}}
    return {"type": "stream_event", "event": event}


def assistant(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    body = {"id": "m", "model": fields.pop("model", "haiku"), "content": list(blocks)}
    return {"type": "assistant", "message": body, **fields}


def user(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"type": "user", "message": {"role": "user", "content": list(blocks)}}


def system(subtype: str, **fields: Any) -> dict[str, Any]:
    return {"type": "system", "subtype": subtype, **fields}


def status(what: str | None) -> dict[str, Any]:
    return system("status", status=what)


PROGRESS = {
    "text": delta("text_delta", text="a"),
    "thinking": delta("thinking_delta", thinking="a"),
    "a tool's input": delta("input_json_delta", partial_json="{"),
    "a finished block": assistant({"type": "text", "text": "a"}),
    "a sub-agent's block": assistant({"type": "text", "text": "a"}, parent_tool_use_id="t"),
    "a tool's call": assistant(CALL),
    "a tool's result": user(RETURN),
    "a compaction": system("compact_boundary"),
}
NOISE = {
    "a sign of life": {"type": "keep_alive"},
    "a tool that runs": {"type": "tool_progress"},
    "a status": status("requesting"),
    "a hook": system("hook_started"),
    "a background task": system("task_progress"),
    "an estimate of thinking": system("thinking_tokens"),
    "the beginning of a message": {"type": "stream_event", "event": {"type": "message_start"}},
    "upstream's ping": {"type": "stream_event", "event": {"type": "ping"}},
    "a failed call of the API": assistant({"type": "text", "text": "x"}, model="<synthetic>"),
    "another failed call": assistant({"type": "text", "text": "x"}, error="overloaded"),
    "a retry": system("api_retry", retry_delay_ms=500),
    "a note to the model": user({"type": "text", "text": "x"}),
    "a limit": {"type": "rate_limit_event", "rate_limit_info": {"status": "rejected"}},
    "what has no name": {"type": "new"},
}


@pytest.mark.parametrize("what", PROGRESS)
def test_it_is_progress(what: str) -> None:
    """What the agent makes shows that it gets on."""
    assert felt(PROGRESS[what]).progress


@pytest.mark.parametrize("what", NOISE)
def test_it_is_none(what: str) -> None:
    """Signs of life do not."""
    assert not felt(NOISE[what]).progress


def test_a_beat_starts_anew() -> None:
    """Progress and waits are told once; waits add up."""
    retry = system("api_retry", retry_delay_ms=500)
    tracker = felt(retry, retry, assistant(CALL))
    assert tracker.since_last() == (True, 1.0)
    assert tracker.since_last() == (False, 0.0)


def test_a_tool_runs_until_its_result() -> None:
    """Of several, until the last one's; a sub-agent's are tools as well."""
    other = CALL | {"id": "v"}
    lines = [assistant(CALL), assistant(other, parent_tool_use_id="u"), user(RETURN)]
    assert felt(*lines).doing is Doing.TOOL
    assert felt(*lines, user(RETURN | {"tool_use_id": "v"})).doing is Doing.MODEL


def test_a_voided_call_is_not_waited_for() -> None:
    """When the model is asked again, no call before it is open."""
    start = {"type": "stream_event", "event": {"type": "message_start", "message": {"id": "n"}}}
    assert felt(assistant(CALL), start).doing is Doing.MODEL


@pytest.mark.parametrize("end", [status(None), system("compact_boundary")])
def test_compaction_is_told_by_its_status(end: dict[str, Any]) -> None:
    """It begins with the status and ends with another or with its boundary."""
    assert felt(status("compacting")).doing is Doing.COMPACTING
    assert felt(status("compacting"), end).doing is Doing.MODEL


def start(answer: str) -> dict[str, Any]:
    event = {"type": "message_start", "message": {"id": answer}}
    return {"type": "stream_event", "event": event}


def void(answer: str, index: int = 0) -> dict[str, Any]:
    abandoned = {"api_message_id": answer, "from_block_index": index}
    return {
        "type": "stream_event",
        "event": {"type": "message_stop"},
        "abandoned_blocks": abandoned,
    }


STEPS = {
    "an answer": ([start("m"), assistant({"type": "text", "text": "a"})], 1, 1),
    "a call": ([start("m"), assistant(CALL)], 1, 1),
    "a call that returned": ([start("m"), assistant(CALL), user(RETURN)], 1, 2),
    "one of two that did": (
        [start("m"), assistant(CALL), assistant(CALL | {"id": "v"}), user(RETURN)],
        1,
        1,
    ),
    "the answer behind a call": ([start("m"), assistant(CALL), user(RETURN), start("n")], 2, 2),
    "two answers in a row": ([start("m"), start("n")], 2, 2),
    "an answer that comes whole": ([assistant({"type": "text", "text": "a"})], 1, 1),
    "a void answer": ([start("m"), void("m"), start("n")], 1, 1),
    "a part of an answer": ([start("m"), void("m", 1), start("n")], 2, 2),
    "a sub-agent's": (
        [
            start("m"),
            assistant(CALL),
            assistant(CALL | {"id": "v"}, parent_tool_use_id="u"),
            user(RETURN | {"tool_use_id": "v"}) | {"parent_tool_use_id": "u"},
        ],
        1,
        1,
    ),
    "no answer": ([assistant({"type": "text", "text": "x"}, model="<synthetic>")], 0, 0),
}


@pytest.mark.parametrize("what", STEPS)
def test_a_step_is_an_answer_of_the_model(what: str) -> None:
    """Answers to the main agent are counted as they begin; the next step begins as soon as
    every tool of the last one has returned."""
    lines, answers, steps = STEPS[what]
    tracker = felt(*lines)
    assert (tracker.answers, tracker.steps) == (answers, steps)


@pytest.mark.parametrize("name", NAMES)
def test_in_every_recording_no_tool_is_left_open_by_a_turn_that_completed(name: str) -> None:
    """What was called has returned when a turn of its own accord is over."""
    tracker = ProgressTracker()
    for way, line in recording(name).lines:
        if way == "out":
            frame = codec.decode(encoded(line))
            tracker.take(frame)
            if line.get("terminal_reason") == "completed":
                assert tracker.doing is Doing.MODEL
