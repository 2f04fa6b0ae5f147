"""Each verb of the fake `claude` does what it says."""

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from fake_claude import delta_text, fake, install, write_start
from fake_claude import verbs as v
from fake_claude.driver import SESSION, Child, arguments, control, environment, user

Json = dict[str, Any]

U1, U2 = "000000a1-0000-4000-8000-000000000000", "000000a2-0000-4000-8000-000000000000"
STOP = control("int-1", "interrupt", cancel_queued=True)
IDLE = {"subtype": "session_state_changed", "state": "idle"}


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    """An installed fake."""
    return install(tmp_path)


def spawn(claude: Path, *more: str, **popen: Any) -> Child:
    """Starts the fake with deltas on."""
    argv = arguments("--include-partial-messages", *more, mode="default")
    return Child(claude, argv, environment(claude.parent), **popen)


def words(lines: list[Json]) -> list[str]:
    """What each line of interest is, in one word."""
    kinds = [line.get("state") or line.get("subtype") or line["type"] for line in lines]
    kept = ("queued", "started", "init", "success", "error_during_execution", "control_response")
    return [kind for kind in kinds if kind in (*kept, "completed", "cancelled", "running", "idle")]


def deltas(lines: list[Json]) -> list[str]:
    events = [line["event"] for line in lines if line["type"] == "stream_event"]
    return [event["delta"]["text"] for event in events if "text" in event.get("delta", {})]


@pytest.mark.parametrize("speak", [v.deltas, v.events])
def test_deltas_are_a_canary(claude: Path, speak: Any) -> None:
    """Every delta tells its number, and the answer is all of them."""
    wanted = [delta_text(number, 12, "t/") for number in range(600)]
    with spawn(claude) as child:
        lines = child.turn(U1, fake(speak(600, 12, "t/")))
    assert deltas(lines) == wanted
    assert lines[-3]["result"] == "".join(wanted)
    assert len({line["uuid"] for line in lines}) == len(lines)


def test_drip_can_be_interrupted(claude: Path) -> None:
    """Deltas come one by one; what came until then is the answer."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.drip(10_000, 2))))
        seen = child.until("stream_event") + [child.line() for _ in range(3)]
        child.send(STOP)
        lines = seen + child.until("system", **IDLE)
    cut = next(line for line in lines if line.get("aborted"))
    assert cut["message"]["content"][0]["text"] == "".join(deltas(lines))


def test_environment_command_line_and_pid_are_told(claude: Path) -> None:
    """What the child was given comes back as its answer."""
    with spawn(claude) as child:
        assert json.loads(child.answer(U1, fake(v.env()))) == environment(claude.parent)
        assert json.loads(child.answer(U2, fake(v.argv())))[1:] == arguments(
            "--include-partial-messages", mode="default"
        )
        assert child.answer(SESSION, fake(v.whoami())) == str(child.pid)


def test_trace_and_system_prompt_are_told(claude: Path) -> None:
    """The last `apply_flag_settings` and the first `initialize` hold."""
    with spawn(claude) as child:
        child.send(control("i-1", "initialize", appendSystemPrompt="Be brief."))
        child.send(control("t-1", "apply_flag_settings", settings={"env": {"TRACEPARENT": "00-a"}}))
        child.send(control("t-2", "apply_flag_settings", settings={"env": {}}))
        answer = child.answer(U1, fake(v.trace(), v.text(" "), v.system_prompt()))
    assert answer == "00-a Be brief."


def test_permission_waits_for_its_answer(claude: Path) -> None:
    """The tool's result is the input that was allowed."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.permission("Write", {"file_path": "a"}))))
        request = child.until("control_request")[-1]
        allowed = {"behavior": "allow", "updatedInput": {"file_path": "b"}}
        response = {"subtype": "success", "request_id": request["request_id"]}
        child.send({"type": "control_response", "response": response | {"response": allowed}})
        lines = child.until("system", **IDLE)
    content = next(line for line in lines if line["type"] == "user")["message"]["content"][0]
    assert json.loads(content["content"]) == {"file_path": "b"}
    assert lines[-3]["result"] == "Allowed."


def test_retries_and_failures_are_told(claude: Path) -> None:
    """`api_retry` counts its attempts; `api_error` fails a turn and not the process."""
    with spawn(claude) as child:
        lines = child.turn(U1, fake(v.api_retry(2, 1, 429), v.api_error(429)))
        retries = [line["attempt"] for line in lines if line.get("subtype") == "api_retry"]
        assert (retries, lines[-3]["api_error_status"]) == ([1, 2], 429)
        assert lines[-2]["state"] == "cancelled"
        assert child.answer(U2, "Say hello") == "hello"


@pytest.mark.parametrize("at", ["now", "exit"])
def test_lost_writes_are_told_and_lost(claude: Path, at: str) -> None:
    """The line comes in the turn or at the exit, and later prompts are not saved."""
    with spawn(claude) as child:
        child.turn(U1, fake(v.writes_lost(at)))
        assert len(json.loads(child.answer(U2, fake(v.history())))) == 1
        child.end_input()
        assert (b"session_writes_lost" in child.rest()) == (at == "exit")


def test_chatty_hang_is_noise_until_interrupted(claude: Path) -> None:
    """It writes lines that are no progress, and obeys an interrupt."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.chatty_hang())))
        child.until("keep_alive")
        child.until("keep_alive")
        child.send(STOP)
        assert words(child.until("system", **IDLE))[-2:] == ["cancelled", "idle"]


@pytest.mark.parametrize("then", ["exit", "hang"])
def test_partial_line_is_half_a_line(claude: Path, then: str) -> None:
    """It exits, or writes nothing more whatever it is asked."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.partial_line(then))))
        child.until("system", subtype="status")
        if then == "hang":
            child.begun_line()  # else the interrupt may come first, and be answered
            child.send(STOP)
            with pytest.raises(TimeoutError):
                child.raw_line(0.05)
            child.process.terminate()
        half = child.raw_line()
        assert half.startswith(b'{"type": "system"')
        assert not half.endswith(b"}")
        assert child.exit_code() == (1 if then == "exit" else 143)


def test_broken_lines_are_written_as_asked(claude: Path) -> None:
    """Not UTF-8, of n bytes, without a newline, no JSON, of a foreign session."""
    with spawn(claude) as child:
        faults = [v.bad_utf8(), v.huge_line(70_000), v.no_newline(), v.wrong_session_id()]
        child.send(user(U1, fake(v.noise(2), *faults)))
        child.until("system", subtype="status")
        assert [child.raw_line()[:8] for _ in range(2)] == [b"Warning:"] * 2
        with pytest.raises(UnicodeDecodeError):
            child.raw_line().decode()
        huge = child.raw_line()
        assert (len(huge), json.loads(huge)["type"]) == (70_001, "assistant")
        with pytest.raises(json.JSONDecodeError, match="Extra data"):
            json.loads(child.raw_line())
        assert child.until("system", **IDLE)


def test_wrong_session_id_is_on_one_line(claude: Path) -> None:
    """The rest of the turn carries the right one."""
    with spawn(claude) as child:
        lines = child.turn(U1, fake(v.wrong_session_id()))
    foreign = [line["type"] for line in lines if line["session_id"] != SESSION]
    assert foreign == ["assistant"]


def test_close_stdout_stay_ends_output_only(claude: Path) -> None:
    """Its reader sees the end; the process lives."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.close_stdout_stay(), v.hang())))
        child.until("system", subtype="status")
        assert child.rest() == b""
        assert child.process.poll() is None


def test_no_read_stdin_leaves_input_unread(claude: Path) -> None:
    """The turn ends, later lines get no answer, and the end of input changes nothing."""
    with spawn(claude) as child:
        child.turn(U1, fake(v.no_read_stdin()))
        child.send(STOP)
        assert not child.readable(0.05)
        child.end_input()
        assert not child.readable(0.05)
        assert child.process.poll() is None


FRAMES = {
    "double_result behind": (v.double_result(), "success completed idle success"),
    "double_result inside": (v.double_result(after_end=False), "success success completed idle"),
    "late_result behind": (v.late_result(5, after_end=True), "completed idle success"),
    "late_result inside": (v.late_result(5), "success completed idle"),
    "late_end": (v.late_end(5), "success completed idle"),
    "unsolicited after": (
        v.unsolicited_turn("after"),
        "success completed idle running init success idle",
    ),
    "no_end": (v.no_end(), "success"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_frame_of_a_turn_is_bent(claude: Path, name: str) -> None:
    """The end of the turn is as asked, and the next turn works."""
    verb, wanted = FRAMES[name]
    with spawn(claude) as child:
        child.send(user(U1, fake(verb)))
        lines = child.until("system", subtype="init")
        while len(words(lines)) < 4 + len(wanted.split()):
            lines.append(child.line())
        assert " ".join(words(lines)) == f"running queued started init {wanted}"
        assert child.answer(U2, "Say hello") == "hello"


def test_unsolicited_turn_before_ours_is_not_ours(claude: Path) -> None:
    """Its `result` has no uuid and comes before `started`."""
    with spawn(claude) as child:
        lines = child.turn(U1, fake(v.unsolicited_turn("before")))
    assert " ".join(words(lines)) == (
        "running init queued success started init success completed idle"
    )
    results = [line for line in lines if line["type"] == "result"]
    assert ["user_message_uuids" in result for result in results] == [False, True]
    assert results[0]["origin"]["kind"] == "task-notification"


INTERRUPTS = {
    "ack_only": (v.ack_only(), "control_response"),
    "result_only": (v.result_only(), "error_during_execution"),
    "never_ack": (v.never_ack(), "error_during_execution cancelled idle"),
    "no_end": (v.no_end(), "control_response error_during_execution"),
    "late_result": (
        v.late_result(5),
        "control_response error_during_execution cancelled idle",
    ),
}


@pytest.mark.parametrize("name", INTERRUPTS)
def test_interrupt_is_obeyed_in_part(claude: Path, name: str) -> None:
    """Exactly the lines asked for come, and none after them."""
    verb, wanted = INTERRUPTS[name]
    with spawn(claude) as child:
        child.send(user(U1, fake(verb, v.hang())))
        child.until("system", subtype="status")
        child.send(STOP)
        lines = [child.line()]
        while len(words(lines)) < len(wanted.split()):
            lines.append(child.line())
        assert " ".join(words(lines)) == wanted
        child.send(control("v-1", "get_binary_version"))
        assert child.line()["response"]["request_id"] == "v-1"


def test_message_is_held_until_an_interrupt(claude: Path) -> None:
    """`cancelled_before_start` never starts; `still_queued` then runs to its end."""
    with spawn(claude) as child:
        for uuid, verb in ((U1, v.cancelled_before_start()), (U2, v.still_queued())):
            child.send(user(uuid, fake(verb)))
            child.until("command_lifecycle", state="queued")
            child.send(STOP)
            lines = child.until("system", **IDLE)
            receipt = next(line for line in lines if line["type"] == "control_response")
            if uuid == U1:
                assert words(lines) == ["cancelled", "control_response", "idle"]
                assert receipt["response"]["response"]["cancelled"] == [U1]
            else:
                assert words(lines)[:3] == ["control_response", "started", "init"]
                assert receipt["response"]["response"]["still_queued"] == [U2]
                assert lines[-2]["state"] == "completed"


DEATHS = {
    "before_started": "queued",
    "after_started": "init",
    "mid_text": "stream_event",
    "after_result": "success",
    "idle": "idle",
}


@pytest.mark.parametrize("phase", DEATHS)
def test_death_comes_in_its_phase(claude: Path, phase: str) -> None:
    """The last line tells the phase, the exit status the code or the signal."""
    with spawn(claude) as child:
        child.send(user(U1, fake(v.die(phase, signal=signal.SIGKILL))))
        lines = [json.loads(line) for line in child.rest().splitlines()]
        last = lines[-1]
        assert (last.get("state") or last.get("subtype") or last["type"]) == DEATHS[phase]
        assert child.exit_code() == -signal.SIGKILL


def test_death_at_the_start_has_its_code(claude: Path) -> None:
    """It dies before it reads, or at `initialize`; `once` spares the next process."""
    for phase in ("start", "init"):
        write_start(claude.parent, v.once(claude.parent / phase, v.die(phase, code=7)))
        with spawn(claude) as child:
            with suppress(BrokenPipeError):
                child.send(control("v-1", "get_binary_version"), control("i-1", "initialize"))
            assert child.rest().count(b"\n") == (phase == "init")
            assert child.exit_code() == 7
    with spawn(claude) as child:
        assert child.initialize()


def test_slow_and_silent_starts(claude: Path) -> None:
    """`never_init` answers nothing, `slow_init` late; a gate holds a start as well."""
    write_start(claude.parent, v.never_init())
    with spawn(claude) as child:
        child.send(control("i-1", "initialize"))
        assert not child.readable(0.05)
    write_start(claude.parent, v.slow_init(1), v.gate(claude.parent / "go"))
    with spawn(claude) as child:
        child.send(control("i-1", "initialize"))
        assert not child.readable(0.05)
        (claude.parent / "go").touch()
        assert child.line()


def test_start_by_environment_comes_first(claude: Path) -> None:
    """FAKE_CLAUDE takes the place of the file; verbs of a turn hold for each turn."""
    write_start(claude.parent, v.never_init())
    env = environment(claude.parent) | {"FAKE_CLAUDE": json.dumps([v.text("Every ")])}
    with Child(claude, arguments(), env) as child:
        assert child.initialize()
        assert child.answer(U1, "Say turn") == "Every turn"


def test_no_lifecycle_is_an_old_version(claude: Path) -> None:
    """No capability and no `command_lifecycle`."""
    write_start(claude.parent, v.no_lifecycle())
    with spawn(claude) as child:
        told = child.initialize()["response"]["response"]["capabilities"]
        assert not {"msg_lifecycle_v1", "interrupt_receipt_v1"} & set(told)
        assert "command_lifecycle" not in {line["type"] for line in child.turn(U1, "Say hello")}


def test_exit_on_resume_finds_no_conversation(claude: Path) -> None:
    """A start is as ever; a resume is that of a lost transcript."""
    write_start(claude.parent, v.exit_on_resume())
    with spawn(claude) as child:
        child.turn(U1, "Say hello")
    argv = arguments(session=f"--resume={SESSION}")
    with Child(claude, argv, environment(claude.parent)) as child:
        assert "No conversation found" in child.line()["errors"][0]
        assert child.exit_code() == 1
