"""`samovar` as a person and a script meet it: words, exit codes, help, and its standard files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from clients.test_reach import credentials_of, grpc_server
from contract.test_tls import certificate
from google.rpc import error_details_pb2
from support.program import SAMOVAR, environ
from support.pseudo_terminal import serve, terminal
from support.scripted_server import Break, Refusal, Script, Step, finished, playing, said, started
from support.service import Running, free_port
from support.timeouts import BOUND
from typer.testing import CliRunner, Result

from samovar import errors
from samovar.cli import app
from samovar.exits import MEANINGS, Exit
from samovar.v1 import errors_pb2

RUNNER = CliRunner()
#: No variable of the starter of the tests counts.
AROUND = dict.fromkeys(
    f"SAMOVAR_{name}"
    for name in ("TARGET", "API_KEY", "OPERATOR", "OPERATOR_KEY", "TLS_CERT", "TLS_KEY")
)
AROUND |= {"COLUMNS": "80"}
REASONS = [
    name.removeprefix("ERROR_REASON_") for name, number in errors_pb2.ErrorReason.items() if number
]
COMMANDS: list[tuple[str, ...]] = [(), ("send",), ("chat",), ("top",), ("health",), ("sessions",)]
COMMANDS += [("sessions", "list"), ("sessions", "show"), ("sessions", "close"), ("usage",)]


def call(*arguments: str, text: str = "") -> Result:
    return RUNNER.invoke(app, arguments, input=text, env=AROUND)


def sent(step: Step, *options: str, again: int = 1) -> Result:
    with playing(Script(*[step] * again)) as target:
        return call("send", "hello", "--deadline", "0.5", "--target", target, *options)


#: What each reason is for a person who sent something to the session `s`, and the exit code.
SAID: dict[str, tuple[Exit, str]] = {
    "CREDENTIAL_INVALID": (Exit.REFUSED, "set --api-key or SAMOVAR_API_KEY"),
    "SCOPE_MISSING": (Exit.REFUSED, "lacks the scope session.send"),
    "TENANT_DISABLED": (Exit.REFUSED, "the tenant is disabled: ask the operator"),
    "REQUEST_INVALID": (Exit.USAGE, "it is REQUEST_INVALID"),
    "SESSION_NOT_FOUND": (Exit.NOT_FOUND, 'session s does not exist: "samovar sessions list"'),
    "TURN_NOT_FOUND": (Exit.NOT_FOUND, "session s has no such turn"),
    "PERMISSION_NOT_FOUND": (Exit.NOT_FOUND, "no longer asked"),
    "ID_TAKEN": (Exit.USAGE, "leave out --profile, --model, --ask, or name another --session"),
    "SESSION_BUSY": (Exit.AGAIN, "session s is busy"),
    "MISCONFIGURED": (Exit.FAILED, "(some-cause): tell the service's operator"),
    "EVENTS_EXPIRED": (Exit.LOST, "the rest of the answer is no longer kept"),
    "QUEUE_FULL": (Exit.AGAIN, "try again in 5.0 s"),
    "QUOTA_EXCEEDED": (Exit.AGAIN, "try again in 5.0 s"),
    "NO_PROCESS": (Exit.AGAIN, "it is NO_PROCESS (some-cause); try again in 5.0 s"),
    "SESSION_ELSEWHERE": (Exit.AGAIN, "try again in 5.0 s"),
    "DRAINING": (Exit.AGAIN, "try again in 5.0 s"),
    "TURN_WITHDRAWN": (Exit.FAILED, "interrupted before it began"),
    "TURN_LOST": (Exit.LOST, "it is TURN_LOST (some-cause): tools may have run"),
    "READER_TOO_SLOW": (Exit.LOST, "not read fast enough"),
    "INTERNAL": (Exit.FAILED, "tell its operator, who finds it as trace abc"),
    "TRANSCRIPT_LOST": (Exit.FAILED, "the transcript of the session s is gone"),
}
REPEATABLE = {"QUEUE_FULL", "QUOTA_EXCEEDED", "NO_PROCESS", "SESSION_ELSEWHERE", "DRAINING"}


def refusal(reason: str) -> Refusal:
    code = 9 if reason == "READER_TOO_SLOW" else 14
    delay = 5.0 if reason in REPEATABLE else None
    told = {"cause": "some-cause", "scope": "session.send", "traceId": "abc"}
    return Refusal(reason, delay, code, **told)


def test_every_reason_has_its_words_and_its_exit_code() -> None:
    """Each is one line on stderr in the command line's own words."""
    assert SAID.keys() == set(REASONS)
    for reason, (code, words) in SAID.items():
        # The client asks again for what was read too slowly, and tells that it does.
        again = reason == "READER_TOO_SLOW"
        done = sent(refusal(reason), "--session", "s", again=20 if again else 1)
        *before, line = done.stderr.splitlines()
        assert (done.exit_code, done.stdout, bool(before)) == (code, "", again), reason
        assert line.startswith("samovar: ")
        assert words in line, reason
        assert "spec" not in line


def test_a_session_that_was_made_otherwise_is_told_by_options() -> None:
    """Which options to leave out, and what the session was made with."""
    differs = "spec.profile,spec.model"
    step = Refusal("ID_TAKEN", None, 6, field="session_id", differs=differs, model="haiku")
    assert sent(step, "--session", "s").stderr == (
        "samovar: the session s exists and was made with haiku: leave out --profile, --model, "
        "or name another --session\n"
    )


def test_a_failed_turn_is_told_in_words_and_as_json() -> None:
    """The outcome and the cause are words, and the exit code says that it failed."""
    end = finished("", outcome=4, failure_cause=4, errors=["no credit"])
    said = sent([started(), end])
    assert (said.exit_code, said.stderr) == (Exit.FAILED, "samovar: no credit\n")
    last = json.loads(sent([started(), end], "--json").stdout.splitlines()[-1])
    assert (last["outcome"], last["failure_cause"]) == ("failed", "billing")


def test_bad_fields_have_their_names_of_the_command_line() -> None:
    """What a request calls a field, a person calls an option."""
    step = Refusal("REQUEST_INVALID", code=3)
    bad = {"spec.profile": "no such profile", "content[0].text": "is empty", "session_id": "is bad"}
    violations = [{"field": field, "description": what} for field, what in bad.items()]
    step.add(error_details_pb2.BadRequest(field_violations=violations))
    told = sent(step).stderr
    assert told == (
        "samovar: --profile: no such profile; the message: is empty; the session's name: is bad\n"
    )


FAILED: list[tuple[Step, dict[str, Any]]] = [
    (
        Refusal("NO_PROCESS", 5.0),
        {"reason": "NO_PROCESS", "code": "UNAVAILABLE", "retry_delay": 5.0},
    ),
    (
        Refusal("TURN_LOST", code=10, promptWritten="true"),
        {"reason": "TURN_LOST", "code": "ABORTED", "prompt_written": True},
    ),
    (Break(grpc.StatusCode.DATA_LOSS), {"reason": "", "code": "DATA_LOSS"}),
]


@pytest.mark.parametrize(("step", "told"), FAILED, ids=lambda step: type(step).__name__)
def test_a_failure_is_one_object_for_machines(step: Step, told: dict[str, Any]) -> None:
    """With `--json` it is the last line of stdout, and stderr is empty."""
    done = sent(step, "--json")
    (line,) = done.stdout.splitlines()
    failure = json.loads(line)
    assert failure.pop("message")
    default = {"event": "Failure", "retry_delay": None, "prompt_written": False}
    assert failure == default | told
    assert done.stderr == ""


def test_wrong_calls_are_objects_for_machines() -> None:
    """No text, no address, a key in plain text: exit code 2."""
    for options in (("",), ("x", "--target", "nowhere"), ("x", "--target", "a:1", "--api-key=k")):
        done = call("send", "--json", *options)
        failure = json.loads(done.stdout)
        assert (done.exit_code, failure["code"]) == (Exit.USAGE, "INVALID_ARGUMENT"), options
        assert done.stderr == ""


def test_what_breaks_on_the_way_is_not_told_in_words_of_the_wire() -> None:
    """A status that no samovard made says what is likely, and where."""
    for code, words in (
        (grpc.StatusCode.UNIMPLEMENTED, "is it the right address"),
        (grpc.StatusCode.PERMISSION_DENIED, "no samovard"),
        (grpc.StatusCode.DATA_LOSS, "broke on the way"),
    ):
        done = sent(Break(code))
        assert done.exit_code == Exit.UNREACHABLE
        assert words in done.stderr
        assert "127.0.0.1:" in done.stderr
        assert "cut" not in done.stderr


def test_who_tells_no_health_is_asked_whether_it_is_one() -> None:
    """A server of gRPC without the service of health."""
    with grpc_server() as target:
        done = call("health", "--target", target)
    assert done.exit_code == Exit.FAILED
    assert done.stderr == f"samovar: what answers at {target} tells no health: is it a samovard?\n"


def test_an_http_status_is_told_as_one() -> None:
    """gRPC makes its own text of what a proxy answers with."""
    error = errors.CallBroken(
        "Received http2 header with status: 502", code=grpc.StatusCode.UNAVAILABLE
    )
    from samovar.reach import Place
    from samovar.words import said as words

    assert "samovar.example:1 says HTTP 502" in words(error, Place("samovar.example:1"))


def test_help_has_no_types_of_flags_and_the_exit_codes() -> None:
    """In every command; each exit code has its meaning."""
    for command in COMMANDS:
        shown = call(*command, "--help").stdout
        assert "--help " in shown
        assert "<bool>" not in shown
    for command in ((), ("send",)):
        shown = call(*command, "--help").stdout
        for code in Exit:
            assert re.search(rf"^ +{code} +{MEANINGS[code]}$", shown, re.MULTILINE), code


def program(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    variables = {"HOME": "/nonexistent"} | options.pop("env", {})
    default: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    default |= {"timeout": BOUND, "text": True}
    if "input" not in options:
        default["stdin"] = subprocess.DEVNULL
    return subprocess.run([*SAMOVAR, *arguments], env=environ(**variables), **default | options)


def test_grpc_itself_says_nothing(directory: Path) -> None:
    """One line where TLS is on one side only, although gRPC would log the handshake."""
    with grpc_server(credentials_of(certificate(directory, host="localhost"))) as target:
        done = program("sessions", "list", "--target", target)
        assert done.stderr == f"samovar: {target} takes calls over TLS only: add --tls\n"
        trusting = program("sessions", "list", "--tls", "--target", target)
        assert "is not trusted" in trusting.stderr
        assert trusting.stderr.count("\n") == 1
    assert (done.returncode, trusting.returncode) == (Exit.UNREACHABLE, Exit.UNREACHABLE)


@pytest.fixture(scope="module")
def talking() -> Iterator[str]:
    """A service that answers each call with a few words that not every terminal can show."""
    step: Step = [started(), said("grüße →\n"), finished("grüße →")]
    with playing(Script(*[step for _ in range(20)])) as target:
        yield target


def test_an_output_that_takes_nothing_is_one_line(talking: str) -> None:
    """A full device: one line that names it, and an exit code."""
    for arguments in (("send", "x", "--target", talking), ("--version",)):
        with open("/dev/full", "w") as full:
            done = program(*arguments, stdout=full)
        assert done.returncode == 1
        assert done.stderr == "samovar: No space left on device\n", arguments


def test_a_reader_that_leaves_ends_it_in_silence(talking: str) -> None:
    """As SIGPIPE would: nothing is said, and a shell sees its usual code."""
    for arguments in (("send", "x", "--target", talking), ("--version",)):
        reading, writing = os.pipe()
        os.close(reading)
        with os.fdopen(writing, "w") as gone:
            done = program(*arguments, stdout=gone)
        assert (done.returncode, done.stderr) == (Exit.READER_GONE, ""), arguments


def test_bytes_that_are_no_text_are_one_line(talking: str) -> None:
    """As an argument, on stdin, in a variable."""
    target = ("--target", talking)
    argument = program("sessions", "show", "\udcff", *target)
    assert (argument.returncode, argument.stderr) == (2, "samovar: an argument is not UTF-8\n")
    key = {**AROUND, "SAMOVAR_API_KEY": "\udcff"}
    for done in (
        RUNNER.invoke(app, ["send", *target], input=b"\xff", env=AROUND),
        RUNNER.invoke(app, ["send", "x"], env={**AROUND, "SAMOVAR_TARGET": "\udcff:1"}),
        RUNNER.invoke(app, ["send", "x", *target], env=key),
    ):
        assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (Exit.USAGE, "", 1), done
        assert done.stderr.startswith("samovar: ")


def test_what_cannot_be_shown_is_escaped(talking: str) -> None:
    """Where the output takes ASCII only."""
    done = program("send", "x", "--target", talking, env={"PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "gr\\xfc\\xdfe \\u2192\n", "")


def test_closed_files_are_as_good_as_none(talking: str) -> None:
    """A program without stdin and stdout does its work."""
    words = " ".join((*map(repr, SAMOVAR), "send", "x", "--target", talking))
    done = subprocess.run(
        ["sh", "-c", f"{words} <&- >&-"], env=environ(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_defect_is_no_traceback() -> None:
    """One line with what it is, and how to see the rest."""
    code = "import samovar.calling as c; c.Place = None; from samovar.cli import main; main()"
    command = [sys.executable, "-c", code, "sessions", "list"]
    done = subprocess.run(command, env=environ(), capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("samovar: a defect of its own, TypeError(")
    assert done.stderr.endswith("): python -X dev shows where\n")
    assert done.stderr.count("\n") == 1


def test_a_terminal_is_told_that_there_are_no_sessions(directory: Path) -> None:
    """Nothing is printed where a program reads it."""

    def story(run: Running) -> None:
        with terminal(directory, "sessions", "list", "--target", run.address) as shown:
            assert shown.exit_code() == 0
            assert shown.raw == 'there are no sessions yet: "samovar chat" begins one\r\n'
        assert call("sessions", "list", "--target", run.address).stdout == ""

    serve(directory, story)


def test_an_answer_commands_no_terminal(directory: Path) -> None:
    """A terminal is shown its text, and nothing that it would obey; a pipe gets it as it is."""
    text = "a\x1b]0;owned\x07b\x9b2Jc\bd"
    with playing(Script(*[[started(), said(text), finished(text)]] * 2)) as target:
        with terminal(directory, "send", "hello", "--target", target) as shown:
            shown.until("d")
            assert shown.exit_code() == 0
        assert shown.raw.split() == ["a]0;ownedb2Jcd"]
        assert call("send", "hello", "--target", target).stdout == f"{text}\n"


def test_nobody_there_is_told_by_every_command() -> None:
    """Each says what to start, and exits with the code of what cannot be reached."""
    target = f"127.0.0.1:{free_port()}"
    for command in (
        ("sessions", "list"),
        ("sessions", "show", "x"),
        ("top", "--once"),
        ("usage",),
        ("usage", "--tenant", "all"),
        ("health",),
    ):
        done = call(*command, "--target", target)
        assert done.exit_code == Exit.UNREACHABLE, command
        assert done.stderr.startswith(f"samovar: no samovard listens at {target}: "), command
        if command != ("health",):
            failure = json.loads(call(*command, "--target", target, "--json").stdout)
            assert (failure["event"], failure["code"]) == ("Failure", "UNAVAILABLE"), command


def test_the_page_has_the_exit_codes() -> None:
    """`docs/errors.md` has each with the words of `--help`."""
    page = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    rows = dict(re.findall(r"^\| (\d+) \| (.*) \|$", page, re.MULTILINE))
    assert rows == {str(int(code)): meaning for code, meaning in MEANINGS.items()}


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e300"])
def test_a_deadline_is_a_number_of_seconds(seconds: str) -> None:
    """What nobody can wait is refused before anything is called."""
    for command in (("send", "x"), ("health",)):
        done = call(*command, f"--deadline={seconds}")
        assert done.exit_code == Exit.USAGE
        assert "is not a number of seconds" in done.stderr
