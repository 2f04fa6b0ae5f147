"""`samovard` and `samovar` as programs: signals, exit codes, what is left."""

import asyncio
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from service import prepare

SAMOVARD = (sys.executable, "-m", "samovard")
SAMOVAR = (sys.executable, "-c", "from samovar.cli import main; main()")


def environ(**variables: str) -> dict[str, str]:
    """Makes an environment from nothing."""
    return {
        "PATH": os.defpath,
        "HOME": "/nonexistent",
        "TMPDIR": tempfile.gettempdir(),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        **variables,
    }


def run(*command: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command,
        env=environ(**variables),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@dataclass
class Program:
    child: "subprocess.Popen[bytes]"
    address: str
    said: str

    def end(self, number: int = signal.SIGTERM, within: float = 20.0) -> int:
        self.child.send_signal(number)
        return self.child.wait(within)


def config_of(directory: Path, binary: Path, **server: object) -> Path:
    key = directory / "key"
    key.touch(mode=0o600)
    key.write_text("sk-test")
    lines = ["[server]", 'listen = "127.0.0.1:0"']
    lines += [f"{name} = {json.dumps(value)}" for name, value in server.items()]
    lines += ["[state]", f'directory = "{directory}"', "[agent]", f'cli = "{binary}"']
    lines += ["[credentials]", 'provider = "file"', f'path = "{key}"', "[pool]", "slots = 4"]
    config = directory / "samovard.toml"
    config.write_text("\n".join(lines))
    return config


@contextmanager
def served(directory: Path, *more: str, **server: object) -> Iterator[Program]:
    """Runs `samovard serve` on the fake CLI until it says where it listens."""
    binary = asyncio.run(prepare(directory, fake=True))
    config = config_of(directory, binary, **server)
    with subprocess.Popen(
        [*SAMOVARD, "serve", "--config", str(config), *more],
        env=environ(SAMOVAR_AUTH__METHODS='["api_key"]' if "--keys" in more else '["none"]'),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ) as child:
        try:
            said = read_until(child, "try: ")
            match = re.search(r"listens on (\S+)", said)
            assert match, said
            yield Program(child, match[1], said)
        finally:
            if child.poll() is None:
                child.kill()


def read_until(child: "subprocess.Popen[bytes]", word: str) -> str:
    assert child.stderr is not None
    said, end = b"", time.monotonic() + 30
    while word.encode() not in said and time.monotonic() < end:
        if select.select([child.stderr], [], [], 0.1)[0]:
            piece = os.read(child.stderr.fileno(), 65536)
            if not piece:
                break
            said += piece
    assert word.encode() in said, said.decode()
    return said.decode()


def send(address: str, text: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return run(*SAMOVAR, "send", "--target", address, *options, text)


def processes_of(directory: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.fsencode(directory / "s") in (process / "environ").read_bytes():
                found.append(process.name)
        except OSError:
            continue
    return found


@contextmanager
def sending(address: str, text: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [*SAMOVAR, "send", "--target", address, "--json", *options, text],
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert "TurnStarted" in child.stdout.readline()
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def test_serve_says_where_and_how(directory: Path) -> None:
    """The first lines tell address, identity, CLI, upstream, and what to try next."""
    with served(directory) as program:
        assert "identity: none" in program.said
        assert "claude 2.1.330" in program.said
        assert "isolation: none" in program.said
        assert f"samovar send --target {program.address}" in program.said
        assert program.end() == 0


def test_send_prints_the_answer(directory: Path) -> None:
    """`samovar send` prints the text and a newline, nothing else, and exits with 0."""
    with served(directory) as program:
        done = send(program.address, "Say hello")
        assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
        lines = send(program.address, "Say hello", "--json").stdout.splitlines()
        events = [json.loads(line) for line in lines]
        assert events[0]["event"] == "TurnStarted"
        assert (events[-1]["event"], events[-1]["outcome"]) == ("TurnFinished", "completed")
        assert program.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_nothing_is_left(directory: Path, number: int) -> None:
    """With idle processes, SIGTERM and SIGINT leave no process and exit with 0."""
    with served(directory) as program:
        for name in ("a", "b"):
            send(program.address, "Say x", "--session", name)
        assert len(processes_of(directory)) == 2
        assert program.end(number) == 0
        assert processes_of(directory) == []


def test_a_running_turn_may_end_before_the_service_does(directory: Path) -> None:
    """Within the grace a turn ends as it would have, and new turns are refused."""
    gate = directory / "gate"
    with served(directory) as program:
        with sending(program.address, fake(v.gate(gate), v.text("whole"))) as turn:
            program.child.send_signal(signal.SIGTERM)
            read_until(program.child, "going away")
            late = send(program.address, "Say x", "--session", "late", "--deadline", "1")
            assert late.returncode == 1
            gate.touch()
            assert "whole" in turn.communicate(timeout=20)[0]
            assert turn.returncode == 0
        assert program.child.wait(20) == 0
        assert processes_of(directory) == []


def test_a_turn_over_the_grace_is_interrupted(directory: Path) -> None:
    """At the end of the grace a turn is told and interrupted, and the service ends."""
    with served(directory, drain_grace="200 ms") as program:
        with sending(program.address, fake(v.hang())) as turn:
            program.child.send_signal(signal.SIGTERM)
            out = turn.communicate(timeout=20)[0]
        assert '"code": "draining"' in out
        assert '"outcome": "interrupted"' in out
        assert program.child.wait(20) == 0


def test_a_stubborn_process_does_not_hold_the_service(directory: Path) -> None:
    """A process that ignores everything is killed within the stop budget; exit 0."""
    with served(directory, drain_grace="100 ms", stop_budget="4 s") as program:
        prompt = fake(v.ignore("eof", "term", "int"), v.never_ack(), v.hang())
        with sending(program.address, prompt):
            begin = time.monotonic()
            assert program.end() == 0
            assert time.monotonic() - begin < 8
        assert processes_of(directory) == []


def test_a_second_signal_hurries(directory: Path) -> None:
    """A second signal ends the waiting for turns."""
    with served(directory, drain_grace="1 h") as program:
        with sending(program.address, fake(v.hang())):
            program.child.send_signal(signal.SIGTERM)
            read_until(program.child, "going away")
            assert program.end() == 0


def test_a_killed_service_takes_its_processes_along(directory: Path) -> None:
    """After SIGKILL the agents die with the service; what a tool left behind is killed by
    the next start, and the conversation goes on."""
    with served(directory) as program:
        send(program.address, "Say one")
        orphan = fake(v.grandchild(setsid=True, orphan=True), v.text("done"))
        assert send(program.address, orphan).returncode == 0
        program.child.kill()
        program.child.wait(10)
    with served(directory) as program:
        assert processes_of(directory) == []
        history = send(program.address, fake(v.history())).stdout
        assert "Say one" in history
        assert program.end() == 0


def test_a_daemon_that_ends_by_itself_leaves_no_zombie(directory: Path) -> None:
    """The service adopts what loses its parent, and reaps it while its session lives on."""
    with served(directory) as program:
        tell = directory / "pid"
        left = v.grandchild(setsid=True, orphan=True, tell=str(tell))
        assert send(program.address, fake(left, v.text("x"))).returncode == 0
        pid = int(tell.read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end, "a zombie is left"
            select.select([], [], [], 0.05)
        assert len(processes_of(directory)) == 1
        assert program.end() == 0


def test_one_state_directory_serves_one_service(directory: Path) -> None:
    """A second service on the same state refuses to start, in one line."""
    with served(directory) as program:
        config = directory / "samovard.toml"
        done = run(*SAMOVARD, "serve", "--config", str(config))
        assert done.returncode == 1
        assert "another samovard uses" in done.stderr
        assert program.end() == 0


def test_a_missing_cli_is_one_clear_line(directory: Path) -> None:
    """Without a CLI the service does not start, and says what to do."""
    config = config_of(directory, directory / "nothing")
    done = run(*SAMOVARD, "serve", "--config", str(config))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert 'pip install "samovard[claude]"' in done.stderr


def test_a_cli_that_fails_the_self_test_is_refused(directory: Path) -> None:
    """A CLI that does not do what is needed is refused in a line that says what it lacks."""
    binary = directory / "claude"
    binary.write_text("#!/bin/sh\nexit 3\n")
    binary.chmod(0o755)
    done = run(*SAMOVARD, "serve", "--config", str(config_of(directory, binary)))
    assert done.returncode == 1
    assert "failed the self-test" in done.stderr.splitlines()[-1]
    assert "agent.cli" in done.stderr.splitlines()[-1]


def test_a_bad_setting_is_one_line_that_names_it(directory: Path) -> None:
    """An unknown key ends the start with exit code 2 and its name."""
    config = directory / "bad.toml"
    config.write_text("[pool]\nslotz = 3\n")
    done = run(*SAMOVARD, "serve", "--config", str(config))
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "pool.slotz" in done.stderr


def test_keys_are_added_listed_and_revoked(directory: Path) -> None:
    """A key is shown once; the list has no secret; a revoked key stays listed as such."""
    state = {"SAMOVAR_STATE__DIRECTORY": str(directory)}
    key = run(*SAMOVARD, "keys", "add", "acme", **state).stdout.strip()
    assert re.fullmatch(r"samovar_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}", key)
    listed = run(*SAMOVARD, "keys", "list", **state).stdout
    assert key.split("_")[1] in listed
    assert key.split("_")[2] not in listed
    assert run(*SAMOVARD, "keys", "revoke", "acme", **state).returncode == 0
    assert "revoked" in run(*SAMOVARD, "keys", "list", **state).stdout
    assert run(*SAMOVARD, "keys", "revoke", "acme", **state).returncode == 1
    assert run(*SAMOVARD, "keys", "add", "Bad Name", **state).returncode == 2


def test_a_server_without_a_disk_is_told_its_keys(directory: Path) -> None:
    """Keys made elsewhere with the same pepper are good from the first call on."""
    made, new = directory / "made", directory / "new"
    new.mkdir()
    state = {"SAMOVAR_STATE__DIRECTORY": str(made)}
    key = run(*SAMOVARD, "keys", "add", "acme", **state).stdout.strip()
    (new / "keys").write_text(run(*SAMOVARD, "keys", "export", **state).stdout)
    (new / "pepper").write_bytes((made / "pepper").read_bytes())
    with served(new, "--keys", str(new / "keys")) as program:
        assert send(program.address, "hi", "--api-key", key).returncode == 0
        assert send(program.address, "hi", "--api-key", key[:-1] + "?").returncode != 0


def test_a_file_of_keys_that_is_none_ends_the_start(directory: Path) -> None:
    """The mistake is one line; nothing is served."""
    (directory / "keys").write_text("samovar_id_secret\n")
    state = {"SAMOVAR_STATE__DIRECTORY": str(directory)}
    done = run(*SAMOVARD, "serve", "--keys", str(directory / "keys"), **state)
    assert done.returncode == 2
    assert (
        done.stderr == f"samovard: {directory}/keys: line 1 is no key of `samovard keys export`\n"
    )


def test_nobody_there_is_one_line_that_says_what_to_do(directory: Path) -> None:
    """`samovar send` to where nothing listens says how to start a service."""
    done = send(f"unix:{directory / 'none.sock'}", "Say x")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert '"samovard serve"' in done.stderr


def test_versions(directory: Path) -> None:
    """Both programs tell their version."""
    assert run(*SAMOVARD, "--version").stdout.startswith("samovard 0.")
    assert run(*SAMOVAR, "--version").stdout.startswith("samovar 0.")
