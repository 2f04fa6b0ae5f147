"""Which frame makes which event, and the report of a turn."""

import json
from typing import Any

import msgspec
import pytest

from samovard.agent import codec, report
from samovard.agent import frames as f
from samovard.agent.event_mapper import EventMapper
from samovard.core import events as ev
from samovard.core.events import Outcome, Usage
from samovard.core.process import EventOptions

MIB = 1 << 20


def told(*lines: dict[str, Any], **options: bool) -> list[ev.Event]:
    mapper = EventMapper(EventOptions(**options))
    found: list[ev.Event] = []
    for line in lines:
        raw = msgspec.json.encode(line)
        found += mapper.events_of(codec.decode(raw), raw)
    return found


def stream(kind: str, **fields: Any) -> dict[str, Any]:
    extra = {"abandoned_blocks": fields.pop("abandoned")} if "abandoned" in fields else {}
    return {"type": "stream_event", "event": {"type": kind, **fields}, **extra}


def start(message: str = "m", **usage: int) -> dict[str, Any]:
    return stream("message_start", message={"id": message, "usage": usage})


def delta(text: str, index: int = 0, kind: str = "text") -> dict[str, Any]:
    made = {"type": f"{kind}_delta", kind: text}
    return stream("content_block_delta", index=index, delta=made)


def block(*blocks: dict[str, Any], message: str = "m", **fields: Any) -> dict[str, Any]:
    body = {"id": message, "model": fields.pop("model", "haiku"), "content": blocks}
    return {"type": "assistant", "message": body, **fields}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def texts(events: list[ev.Event]) -> list[tuple[int, str]]:
    return [(e.block_index, e.text) for e in events if isinstance(e, ev.TextDelta)]


def test_without_partial_a_block_comes_whole() -> None:
    """Deltas are not told; the finished block is, with its index."""
    lines = [start(), delta("on"), delta("e"), block(text("one")), block(text("two"))]
    assert texts(told(*lines)) == [(0, "one"), (1, "two")]


def test_with_partial_a_streamed_block_is_not_repeated() -> None:
    """A block that had deltas is told once; one that had none comes whole."""
    lines = [start(), delta("on"), delta("e"), block(text("one")), block(text("two"))]
    assert texts(told(*lines, partial=True)) == [(0, "on"), (0, "e"), (1, "two")]


def halves(kind: str, *parts: str) -> list[str]:
    """Return the deltas that are told of a block, whose parts may end within a character."""
    mapper = EventMapper(EventOptions(partial=True, thinking=True))
    lines = [start(), *(delta(part, 1, kind) for part in parts)]
    lines += [stream("content_block_stop", index=1)]
    events: list[ev.Event] = []
    for line in lines:
        raw = json.dumps(line).encode()  # as JavaScript: half a pair is an escape
        events += mapper.events_of(codec.decode(raw), raw)
    wanted = ev.TextDelta if kind == "text" else ev.ThinkingDelta
    assert all(type(event) is wanted and event.block_index == 1 for event in events)
    return [event.text for event in events if isinstance(event, wanted)]


@pytest.mark.parametrize("kind", ["text", "thinking"])
@pytest.mark.parametrize(
    ("parts", "told"),
    [
        (["a\ud83d", "\ude00b"], ["a", "\U0001f600b"]),
        (["\ud83d", "", "\ude00"], ["\U0001f600"]),
        (["é\ud83d", "\ude00\ud83d", "\ude00"], ["é", "\U0001f600", "\U0001f600"]),
        (["\ud83d", "b"], ["\ufffdb"]),
        (["a\ude00", "b"], ["a\ufffd", "b"]),
        (["a\ud83db"], ["a\ufffdb"]),
        (["a\ud83d"], ["a", "\ufffd"]),
        (["\ud83d", "\ud83d", "\ude00"], ["\ufffd", "\U0001f600"]),
    ],
)
def test_a_character_that_two_deltas_share_is_told_whole(
    kind: str, parts: list[str], told: list[str]
) -> None:
    """Half of it waits for the next delta of its block; what has no other half is U+FFFD."""
    assert halves(kind, *parts) == told


def test_half_a_character_waits_for_its_own_block() -> None:
    """A delta of another block has no part in it."""
    lines = [start(), delta("\ud83d", 0), delta("b", 1), delta("\ude00", 0)]
    mapper = EventMapper(EventOptions(partial=True))
    raws = [json.dumps(line).encode() for line in lines]
    events = [event for raw in raws for event in mapper.events_of(codec.decode(raw), raw)]
    assert texts(events) == [(1, "b"), (0, "\U0001f600")]


@pytest.mark.parametrize("partial", [True, False])
def test_thinking_comes_only_if_asked_for(partial: bool) -> None:
    """It takes an index in either case."""
    thought = {"type": "thinking", "thinking": "hm"}
    lines = [start(), delta("hm", kind="thinking"), block(thought), block(text("yes"))]
    silent = told(*lines, partial=partial)
    assert [type(event) for event in silent] == [ev.TextDelta]
    assert texts(silent) == [(1, "yes")]
    loud = told(*lines, partial=partial, thinking=True)
    assert [type(event) for event in loud] == [ev.ThinkingDelta, ev.TextDelta]


def test_a_tool_call_is_told_once() -> None:
    """A call that is repeated is the same call."""
    use = {"type": "tool_use", "id": "u", "name": "Bash", "input": {"n": 1}}
    (event,) = told(block(use), block(use))
    assert isinstance(event, ev.ToolUse)
    assert (event.tool_name, event.input_json) == ("Bash", '{"n":1}')


def test_a_tools_result_is_the_text_of_its_parts() -> None:
    """A text, or the text parts of a list."""
    contents = ["plain", [text("a"), {"type": "image"}, text("b")], None]
    rows = [
        {"type": "tool_result", "tool_use_id": "u", "content": c, "is_error": True}
        for c in contents
    ]
    events = told({"type": "user", "message": {"content": rows}})
    assert [e.text for e in events if isinstance(e, ev.ToolResult)] == ["plain", "ab", ""]
    assert not told({"type": "user", "message": {"content": "a note"}})


def test_a_sub_agents_events_name_their_call() -> None:
    """Every event of a sub-agent's line carries the call that it works for."""
    use = {"type": "tool_use", "id": "u", "name": "Bash", "input": {}}
    events = told(block(text("a"), use, parent_tool_use_id="task"))
    assert [event.parent_tool_use_id for event in events] == ["task", "task"]


def test_large_text_is_split_and_other_strings_are_cut() -> None:
    """No event passes its bound; what is missing is counted."""
    use = {"type": "tool_use", "id": "u", "name": "Bash", "input": {"x": "y" * 2 * MIB}}
    events = told(block(text("é" * MIB)), block(use))
    parts = [event.text for event in events if isinstance(event, ev.TextDelta)]
    assert "".join(parts) == "é" * MIB
    assert max(len(part.encode()) for part in parts) <= MIB
    (call,) = (event for event in events if isinstance(event, ev.ToolUse))
    assert len(call.input_json) == MIB
    assert call.input_truncated_bytes == 2 * MIB + 8 - MIB


LONG = "x" * 100_000
TOOL = {"type": "tool_use", "id": f"{LONG}1", "name": LONG}
RESULT = {"type": "tool_result", "tool_use_id": f"{LONG}1", "content": "r"}
MANY = {"type": "tool_result", "tool_use_id": "t", "content": "r"}
ASKS = {"subtype": "can_use_tool", "tool_name": LONG, "tool_use_id": f"{LONG}1", "title": LONG}
INIT = {"model": LONG, "claude_code_version": LONG, "tools": [LONG] * 2000}


@pytest.mark.parametrize(
    "lines",
    [
        [start(LONG), delta("a"), delta("b")],
        [start(LONG), delta("a"), stream("message_stop", abandoned={"api_message_id": LONG})],
        [block(text("a"), text("b"), message=LONG, parent_tool_use_id=LONG)],
        [block(TOOL)],
        [{"type": "user", "message": {"content": [RESULT]}}],
        [{"type": "control_request", "request_id": "r", "request": ASKS}],
        [{"type": "control_request", "request_id": LONG, "request": ASKS}],
        [{"type": "control_cancel_request", "request_id": LONG}],
        [{"type": "system", "subtype": "init", **INIT}],
        [{"type": "system", "subtype": LONG}],
    ],
)
def test_ids_and_names_are_cut(lines: list[dict[str, Any]]) -> None:
    """However long those of a line are, an event has a few KiB of them, and at most 1,024 tools."""
    events = told(*lines, partial=True)
    assert events
    for event in events:
        most = 300_000 if isinstance(event, ev.AgentInfo) else 10_000
        assert len(msgspec.json.encode(event)) < most


def test_ids_that_are_cut_stay_the_same_and_different() -> None:
    """A tool's result and the request to use it have its id, and another tool another one."""
    other = {**TOOL, "id": f"{LONG}2"}
    request = {"type": "control_request", "request_id": "r", "request": ASKS}
    result = {"type": "user", "message": {"content": [RESULT]}}
    events: Any = told(block(TOOL, other, parent_tool_use_id=LONG), request, result)
    use, another, asked, done = events
    assert use.tool_use_id == asked.tool_use_id == done.tool_use_id != another.tool_use_id
    assert len(use.tool_use_id) == len(another.tool_use_id) == f.MAX_ID
    assert asked.parent_tool_use_id == use.parent_tool_use_id == another.parent_tool_use_id != ""


@pytest.mark.parametrize(
    "line",
    [
        block(*[text("x")] * 60_000, message=LONG, parent_tool_use_id=LONG),
        {"type": "user", "message": {"content": [MANY] * 60_000}, "parent_tool_use_id": LONG},
    ],
    ids=["blocks", "results"],
)
def test_a_line_of_many_blocks_is_bounded(line: dict[str, Any]) -> None:
    """1,024 blocks are told, and how many more there were; all events have less than 1 MiB."""
    *events, notice = told(line)
    assert len(events) == 1024
    assert isinstance(notice, ev.Notice)
    assert (notice.code, notice.message[:30]) == (
        "blocks-left-out",
        "58976 blocks were left out: th",
    )
    assert len(msgspec.json.encode([*events, notice])) < MIB


def test_a_cut_is_between_characters() -> None:
    """A character is whole or gone."""
    kept, missing = report.cut("a" + "é" * MIB)
    assert kept == "a" + "é" * (MIB // 2 - 1)
    assert missing == 1 + 2 * MIB - len(kept.encode())


def test_a_failed_call_is_not_speech() -> None:
    """What the CLI says in the agent's place is no text."""
    assert not told(block(text("API Error"), model="<synthetic>"))
    assert not told(block(text("x"), error="overloaded"))


def test_blocks_are_abandoned_only_if_they_were_told() -> None:
    """Callers who saw no delta of a block need not forget it."""
    void = stream("message_stop", abandoned={"api_message_id": "m", "from_block_index": 1})
    lines = [start(), delta("a", 0), delta("b", 1), void]
    assert isinstance(told(*lines, partial=True)[-1], ev.BlocksAbandoned)
    assert not told(*lines)
    assert len(told(start(), delta("a", 0), void, partial=True)) == 1


def test_usage_adds_up_over_messages() -> None:
    """What the turn has spent so far: a message's end says what its start left open."""
    end = {"usage": {"output_tokens": 5}}
    events = told(
        start(input_tokens=10, output_tokens=1),
        stream("message_delta", **end),
        start("n", input_tokens=20),
        stream("message_delta", **end),
    )
    spent = [event.usage for event in events if isinstance(event, ev.UsageUpdated)]
    assert spent == [Usage(10, 5), Usage(30, 10)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ({"type": "system", "subtype": "api_retry", "attempt": 1}, "api-retry"),
        ({"type": "system", "subtype": "compact_boundary"}, "context-compacted"),
        ({"type": "system", "subtype": "session_writes_lost"}, "writes-lost"),
        ({"type": "system", "subtype": "model_fallback"}, "model-fallback"),
        ({"type": "system", "subtype": "model_refusal_fallback"}, "model-fallback"),
        ({"type": "rate_limit_event", "rate_limit_info": {"status": "rejected"}}, "rate-limited"),
    ],
)
def test_what_is_worth_showing_is_a_notice(line: dict[str, Any], code: str) -> None:
    """Each has a code."""
    (event,) = told(line)
    assert isinstance(event, ev.Notice)
    assert event.code == code


def test_an_mcp_server_that_is_not_connected_is_a_notice() -> None:
    """By its name, behind what the agent is."""
    servers = [{"name": "calc", "status": "connected"}, {"name": "docs", "status": "failed"}]
    _, notice = told({"type": "system", "subtype": "init", "mcp_servers": servers})
    assert isinstance(notice, ev.Notice)
    assert "docs is not connected (failed)" in notice.message


@pytest.mark.parametrize(
    "line",
    [
        {"type": "keep_alive"},
        {"type": "tool_progress"},
        {"type": "system", "subtype": "status", "status": "requesting"},
        {"type": "system", "subtype": "task_progress"},
        {"type": "rate_limit_event", "rate_limit_info": {"status": "allowed"}},
    ],
)
def test_what_says_nothing_makes_no_event(line: dict[str, Any]) -> None:
    """Signs of life are silent."""
    assert not told(line)


def test_what_has_no_name_is_unrecognized() -> None:
    """It is delivered, not dropped, with its line if that was asked for."""
    lines = [{"type": "new", "subtype": "x"}, {"type": "system", "subtype": "newer"}]
    events = told(*lines, raw_json=True)
    assert [(e.type, e.subtype) for e in events if isinstance(e, ev.Unrecognized)] == [
        ("new", "x"),
        ("system", "newer"),
    ]
    assert events[0].raw == msgspec.json.encode(lines[0])


def test_another_model_is_named() -> None:
    """A notice says which model answers for which, and why, in words of our own."""
    models = {"original_model": "big", "fallback_model": "small"}
    words = {"trigger": "overloaded", "content": "http://10.0.0.7 is overloaded"}
    (event,) = told({"type": "system", "subtype": "model_fallback"} | models | words)
    assert isinstance(event, ev.Notice)
    assert event.message == "small answers for big (overloaded)"


def test_an_unnamed_line_may_be_told_by_itself() -> None:
    """Where lines may be seen, one without a name is, whether or not all were asked for."""
    lines = [{"type": "new"}, block(text("x"))]
    unnamed, named = told(*lines, raw_unrecognized=True)
    assert (unnamed.raw, named.raw) == (b'{"type":"new"}', b"")
    assert named.raw_bytes > 0


def test_the_line_is_on_the_first_of_its_events() -> None:
    """Its length always, itself only if asked for and not too long."""
    line = block(text("a"), text("b"))
    size = len(msgspec.json.encode(line))
    assert [(e.raw_bytes, bool(e.raw)) for e in told(line)] == [(size, False), (0, False)]
    assert told(line, raw_json=True)[0].raw
    assert not told(block(text("x" * MIB)), raw_json=True)[0].raw


def result(**fields: Any) -> f.Result:
    frame = codec.decode(msgspec.json.encode({"type": "result", **fields}))
    assert isinstance(frame, f.Result)
    return frame


@pytest.mark.parametrize(
    ("reason", "is_error", "outcome"),
    [
        ("completed", False, Outcome.COMPLETED),
        (None, False, Outcome.COMPLETED),
        ("completed", True, Outcome.FAILED),
        (None, True, Outcome.FAILED),
        ("aborted_streaming", True, Outcome.INTERRUPTED),
        ("aborted_tools", True, Outcome.INTERRUPTED),
        ("max_turns", True, Outcome.LIMIT_REACHED),
        ("budget_exhausted", True, Outcome.LIMIT_REACHED),
        ("api_error", True, Outcome.FAILED),
        ("blocking_limit", True, Outcome.FAILED),
        ("something_new", False, Outcome.FAILED),
    ],
)
def test_outcome_follows_the_terminal_reason(
    reason: str | None, is_error: bool, outcome: Outcome
) -> None:
    """Neither `subtype` nor `is_error` alone tells how a turn ended."""
    frame = result(terminal_reason=reason, is_error=is_error, subtype="success")
    assert report.finished(frame, {}).outcome is outcome


def test_error_texts_are_ours() -> None:
    """The CLI's own texts name hosts and address the operator."""
    frame = result(
        terminal_reason="api_error",
        is_error=True,
        api_error_status=529,
        result="API Error: http://10.0.0.7:1234",
        errors=["ask /your/operator"],
    )
    finished = report.finished(frame, {})
    assert finished.errors == ("the model's API is overloaded",)
    assert (finished.upstream_status, finished.result) == (529, "")


def test_when_the_api_takes_requests_again_is_told_of_its_refusal_only() -> None:
    """A delay belongs to a turn that met the limit."""
    refused = result(terminal_reason="api_error", is_error=True, api_error_status=429)
    assert report.finished(refused, {}, resets=7.0).upstream_retry_delay == 7.0
    assert report.finished(refused, {}).upstream_retry_delay is None
    failed = result(terminal_reason="api_error", is_error=True, api_error_status=529)
    assert report.finished(failed, {}, resets=7.0).upstream_retry_delay is None
    assert report.finished(result(), {}, resets=7.0).upstream_retry_delay is None


def test_usage_is_this_turns() -> None:
    """Of what the CLI says of this turn, or else the difference to what it had used."""
    used = {"haiku": {"inputTokens": 30, "outputTokens": 9, "costUSD": 0.5}}
    turn = {"haiku": {"inputTokens": 10, "outputTokens": 4, "costUSD": 0.25}}
    told_so = report.finished(result(modelUsage=used, model_usage_since_last_result=turn), {})
    assert told_so.usage == Usage(10, 4, cost_usd=0.25)
    before = {"haiku": f.ModelUsage(20, 5, cost_usd=0.25)}
    assert report.finished(result(modelUsage=used), before).usage == told_so.usage
