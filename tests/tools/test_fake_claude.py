"""The fake `claude` speaks as the recorded CLI does, and ends as it does."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from fake_claude import fake, install
from fake_claude import verbs as v
from fake_claude.driver import SESSION, Child, arguments, control, environment, user
from support.recordings import recording

Json = dict[str, Any]

U1, U2, U3 = (f"{number:08x}-0000-4000-8000-000000000000" for number in (0xA1, 0xA2, 0xA3))

NOTE = {"file_path": "/workspace/note.txt", "content": "hello"}
ASKS = [v.text("Using a tool. "), v.permission("Write", NOTE)]
FOX = fake(*(v.text(part) for part in ("The quick b", "rown fox ju", "mps over th", "e lazy dog.")))
TICKS = fake(*(v.text(f"tick{number} ") for number in range(3)), v.hang())

# What each message of a recording is answered with, by the script that takes its place.
RECORDED = {
    "plain-turn": ["Say Hello"],
    "three-turns": ["Say Answer 1", "Say Answer 2", "Say Answer 3"],
    "partial-messages": [FOX],
    "interrupt-before-start": ["Say Warm", "Say never"],
    "plain-interrupt-before-start": ["Say Warm.", "Say Ran to its end."],
    "interrupt-mid-stream": [TICKS, "Say Still here"],
    "interrupt-mid-tool": [fake(v.text("Using a tool. "), v.tool(hang=True))],
    "interrupt-while-asking": [fake(*ASKS)],
    "tool-allowed": [fake(*ASKS, v.text("Written."))],
    "tool-denied": [fake(*ASKS, v.text("I was not allowed."))],
    "tool-denied-and-interrupted": [fake(*ASKS)],
    "tool-denied-by-mode": [fake(*ASKS, v.text("I may not."))],
    "two-rapid-sends": ["Say First.", "Say Second."],
    "api-529": [fake(v.api_retry(2), v.api_error(529))],
    "control-requests": ["Say Alive."],
    "kill-mid-turn": ["Say One", TICKS],
}
# Values that must be the recorded ones, wherever they stand.
SAME = {"type", "subtype", "state", "status", "command_uuid", "user_message_uuids", "session_id"}
SAME |= {"terminal_reason", "stop_reason", "is_error", "num_turns", "result_index", "aborted"}
SAME |= {"behavior", "still_queued", "cancelled", "error_code", "index", "modelUsage", "usage"}
SAME |= {"model_usage_since_last_result", "current_permission_mode", "account", "permissionMode"}
# Fields whose content is the tool's or the failure's own.
OWN = {"tool_use_result", "tool_result_meta", "permission_suggestions", "message_failed"}
OWN |= {"plugins", "capabilities", "subagent_stats"}
# What the fake does not say.
UNSAID = {"user_output_styles_dir"}
# What is counted; the CLI counts more besides.
COUNTED = {"input_tokens", "output_tokens", "inputTokens", "outputTokens", "costUSD"}


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """An installed fake."""
    return install(tmp_path)


def spawn(
    claude: Path, *more: str, mode: str = "dontAsk", session: str = SESSION, resume: bool = False
) -> Child:
    """Starts the fake in the test's directory."""
    which = f"--resume={session}" if resume else f"--session-id={session}"
    argv = arguments(*more, mode=mode, session=which)
    return Child(claude, argv, environment(claude.parent), cwd=claude.parent)


def shape(value: object, key: str = "") -> object:
    """A line without the values that differ from run to run."""
    if key in OWN:
        return "..."
    if key in SAME and not isinstance(value, float):
        return rounded(value)
    if isinstance(value, dict):
        return {name: shape(value[name], name) for name in sorted(value.keys() - UNSAID)}
    if isinstance(value, list):
        return [shape(item) for item in value if isinstance(item, dict)]
    said = key == "text" and not str(value).startswith(("Estimated", "API"))
    return value if said else "..."


def rounded(value: object) -> object:
    if isinstance(value, dict):
        counts = COUNTED & value.keys() or value.keys()
        return {name: rounded(value[name]) for name in counts}
    return round(value, 9) if isinstance(value, float) else value


def replay(child: Child, name: str, prompts: list[str]) -> None:
    """Sends what the recording sent, when it sent it, and expects what it got."""
    waiting = iter(prompts)
    pending: list[Json] = []
    asked = ""
    for way, line in recording(name).lines:
        if way == "in":
            if line["type"] == "user":
                line["message"]["content"][0]["text"] = next(waiting)
            if line["type"] == "control_response":
                line["response"]["request_id"] = asked
            pending.append(line)
            continue
        if pending:
            child.send(*pending)
            pending = []
        got = child.line()
        if got["type"] == "control_request":
            asked = got["request_id"]
        assert shape(got) == shape(line)


def start_of(name: str) -> tuple[list[str], str, str]:
    """The switches, permission mode and session id that a recording was made with."""
    recorded = recording(name)
    lines = [line for way, line in recorded.lines if way == "out"]
    partial = "--include-partial-messages" in recorded.arguments
    partial = partial or any(line["type"] == "stream_event" for line in lines)
    mode = next(
        line["response"]["response"]["current_permission_mode"]
        for line in lines
        if line["type"] == "control_response"
    )
    session = next(line["session_id"] for line in lines if "session_id" in line)
    return ["--include-partial-messages"] if partial else [], mode, session


@pytest.mark.parametrize("name", RECORDED)
def test_wire_is_the_recorded_one(claude: Path, name: str) -> None:
    """Order, fields and meaning of the lines are those of the real CLI."""
    more, mode, session = start_of(name)
    with spawn(claude, *more, mode=mode, session=session) as child:
        replay(child, name, RECORDED[name])


def test_resume_after_a_kill_is_the_recorded_one(claude: Path) -> None:
    """A killed session resumes with its id, and a message it had is not run again."""
    more, mode, session = start_of("kill-mid-turn")
    with spawn(claude, *more, mode=mode, session=session) as child:
        replay(child, "kill-mid-turn", RECORDED["kill-mid-turn"])
        child.process.kill()
    with spawn(claude, *more, mode=mode, session=session, resume=True) as child:
        replay(child, "resume-after-kill", ["Say Three", "Say never"])


def test_missing_conversation_is_the_recorded_result(claude: Path) -> None:
    """`--resume=` of an unknown id prints one `result` and exits with 1."""
    wanted = recording("resume-missing").lines[0][1]
    with spawn(claude, session=wanted["session_id"], resume=True) as child:
        assert shape(child.line()) == shape(wanted)
        assert child.exit_code() == 1


def test_messages_sent_in_a_turn_share_the_next_one(claude: Path) -> None:
    """Three sends give two results, the second with two uuids, and no idle between."""
    first = fake(v.touch(claude.parent / "runs"), v.gate(claude.parent / "go"), v.text("First."))
    with spawn(claude) as child:
        child.send(user(U1, first))
        child.until("system", subtype="init")
        child.send(user(U2, "Say Second."), user(U3, "Say Third."))
        queued = child.until("command_lifecycle", command_uuid=U3, state="queued")
        (claude.parent / "go").touch()
        lines = queued + child.until("system", subtype="session_state_changed")
    ends = [line for line in lines if "command_uuid" in line]
    states = [(line["command_uuid"][:8], line["state"]) for line in ends]
    wanted = "2 queued, 3 queued, 1 completed, 2 started, 3 started, 2 completed, 3 completed"
    assert ", ".join(f"{uuid[-1]} {state}" for uuid, state in states) == wanted
    results = [line for line in lines if line["type"] == "result"]
    assert [result["user_message_uuids"] for result in results] == [[U1], [U2, U3]]
    assert results[1]["result"] == "Second.Third."


def test_interrupt_cancels_what_waits_too(claude: Path) -> None:
    """With `cancel_queued` the running turn is aborted and the queued one withdrawn."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.hang())))
        child.until("system", subtype="init")
        child.send(user(U2, "never"), control("int-1", "interrupt", cancel_queued=True))
        lines = child.until("system", subtype="session_state_changed", state="idle")
    receipt = next(line for line in lines if line["type"] == "control_response")
    assert receipt["response"]["response"] == {"still_queued": [], "cancelled": [U2]}
    ends = {line["command_uuid"]: line["state"] for line in lines if "command_uuid" in line}
    assert ends == {U1: "cancelled", U2: "cancelled"}
    assert [line["terminal_reason"] for line in lines if "result_index" in line] == [
        "aborted_streaming"
    ]


def test_plain_interrupt_aborts_a_first_message(claude: Path) -> None:
    """Without `cancel_queued` it is still queued, started and aborted, without `assistant`."""
    with spawn(claude) as child:
        child.send(user(U1, "Say never"), control("int-1", "interrupt"))
        lines = child.until("system", subtype="session_state_changed", state="idle")
    assert [line.get("state", line["type"]) for line in lines] == [
        "running",
        "queued",
        "control_response",
        "started",
        "system",
        "user",
        "result",
        "cancelled",
        "idle",
    ]


def test_interrupt_of_an_idle_process_is_answered(claude: Path) -> None:
    """Nothing is queued, nothing is cancelled, and the next turn works."""
    with spawn(claude) as child:
        child.send(control("int-1", "interrupt", cancel_queued=True))
        receipt = child.line()["response"]["response"]
        assert receipt == {"still_queued": [], "cancelled": []}
        assert child.answer(U1, "Say hello") == "hello"


def test_version_is_the_recorded_one(claude: Path) -> None:
    """`--version` prints the version and exits."""
    with Child(claude, ["--version"], {}) as child:
        assert child.rest() == b"2.1.330 (Claude Code)\n"
        assert child.exit_code() == 0


@pytest.mark.parametrize(
    "argv",
    [
        arguments("--no-such-flag"),
        arguments("--settings={"),
        arguments(mode="yolo"),
        arguments(session="--resume=/path/x.jsonl"),
        arguments(f"--resume={SESSION}"),
        ["--print"],
    ],
)
def test_bad_command_line_is_refused(claude: Path, argv: list[str]) -> None:
    """It complains and exits with 1."""
    with Child(claude, argv, environment(claude.parent)) as child:
        assert child.exit_code() == 1
        assert "rror" in child.complaint()


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"null",
        b'"\xff"',
        b'{"type":"user"}',
        b'{"type":"user","message":{"role":"assistant"}}',
        b'{"type":"control_request","request_id":"x"}',
    ],
)
def test_malformed_input_ends_the_process(claude: Path, line: bytes) -> None:
    """It complains and exits with 1 at once, in mid-turn too."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.hang())))
        child.until("system", subtype="init")
        child.send_raw(line + b"\n")
        assert child.exit_code() == 1
        assert child.complaint()


def test_harmless_input_is_ignored(claude: Path) -> None:
    """Unknown lines get no answer; a line may come in pieces and with a carriage return."""
    with spawn(claude) as child:
        child.send_raw(b'\n[]\n{"type":"mystery"}\n{"type":"keep_alive"}\n')
        child.send_raw(b'{"type":"user","message":{"role":"user","content":7}}\n')
        child.send_raw(b'{"type":"control_response","response":{"request_id":"x"}}\n')
        whole = json.dumps(user(U1, "Say \u2028hello")).encode() + b"\r\n"
        for number in range(0, len(whole), 40):
            child.send_raw(whole[number : number + 40])
        assert child.line()["state"] == "running"


def test_credential_comes_by_variable_or_descriptor(claude: Path) -> None:
    """A pipe is read to its end; without a credential `account` names no source."""
    env = environment(claude.parent)
    del env["ANTHROPIC_API_KEY"]
    with Child(claude, arguments(), env) as child:
        account = child.initialize()["response"]["response"]["account"]
        assert account == {"tokenSource": "none", "apiProvider": "firstParty"}
    read, write = os.pipe()
    os.write(write, b"key-by-pipe\n")
    os.close(write)
    env["CLAUDE_CODE_API_KEY_FILE_DESCRIPTOR"] = str(read)
    with Child(claude, arguments(), env, pass_fds=(read,)) as child:
        os.close(read)
        account = child.initialize()["response"]["response"]["account"]
        assert account["apiKeySource"] == "ANTHROPIC_API_KEY"
        assert child.answer(U1, fake(v.credential())) == "key-by-pipe"


def test_end_of_input_lets_the_turn_finish(claude: Path) -> None:
    """Idle, it exits with 0; in a turn it finishes first; an open question is denied."""
    go = claude.parent / "go"
    with spawn(claude) as child:
        child.initialize()
        child.end_input()
        assert child.exit_code() == 0
    with spawn(claude, mode="default") as child:
        child.send(user(U1, fake(v.gate(go), v.permission())))
        child.until("system", subtype="init")
        child.end_input()
        go.touch()
        assert child.until("result")[-1]["result"] == "Denied."
        assert child.exit_code() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_sigterm_ends_a_turn_without_result(claude: Path, number: signal.Signals) -> None:
    """The exit code is 128 and the signal."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.hang())))
        child.until("system", subtype="init")
        child.process.send_signal(number)
        assert child.exit_code() == 128 + number
        assert b"result" not in child.rest()


def test_sigint_ends_a_turn_with_result(claude: Path) -> None:
    """The turn is aborted, then the process exits with 0."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.text("half"), v.hang())))
        child.until("system", subtype="init")
        child.process.send_signal(signal.SIGINT)
        assert child.until("result")[-1]["terminal_reason"] == "aborted_streaming"
        assert child.exit_code() == 0


def test_conversation_outlives_the_process(claude: Path) -> None:
    """A resumed process knows the prompts and, after a clean exit, the usage."""
    with spawn(claude) as child:
        child.turn(U1, "Say one")
        child.end_input()
        assert child.exit_code() == 0
    with spawn(claude, resume=True) as child:
        asked = fake(v.history())
        result = child.turn(U2, asked)[-3]
        assert json.loads(result["result"]) == ["Say one", asked]
        assert result["modelUsage"]["claude-haiku-5-5"]["inputTokens"] == 20
        assert result["model_usage_since_last_result"]["claude-haiku-5-5"]["inputTokens"] == 10


def test_session_id_with_a_transcript_is_refused(claude: Path) -> None:
    """It may be used again only if no message was written, and resumed from any directory."""
    with spawn(claude) as child:
        child.initialize()
    with spawn(claude) as child:
        child.turn(U1, "Say one")
    with spawn(claude) as child:
        assert child.exit_code() == 1
        assert "already in use" in child.complaint()
    argv = arguments(session=f"--resume={SESSION}")
    with Child(claude, argv, environment(claude.parent), cwd="/") as child:
        assert child.answer(U2, "Say two") == "two"


def test_same_uuid_in_one_process_is_ignored(claude: Path) -> None:
    """A message that this process took before gets no line at all."""
    with spawn(claude) as child:
        child.turn(U1, "Say one")
        child.send(user(U1, "Say one"), user(U2, "Say two"))
        lines = child.until("system", subtype="session_state_changed", state="idle")
    assert {line["command_uuid"] for line in lines if "command_uuid" in line} == {U2}


def test_state_is_told_only_if_asked_for(claude: Path) -> None:
    """Without the variable there is no `session_state_changed`."""
    env = environment(claude.parent)
    del env["CLAUDE_CODE_EMIT_SESSION_STATE_EVENTS"]
    with Child(claude, arguments(), env) as child:
        child.send(user(U1, "Say hello"))
        lines = child.until("command_lifecycle", state="completed")
    assert "session_state_changed" not in {line.get("subtype") for line in lines}
