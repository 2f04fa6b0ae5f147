"""`samovard` and `samovar` as programs: signals, exit codes, what is left."""

import asyncio
import json
import os
import re
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.program import (
    SAMOVAR,
    SAMOVARD,
    Program,
    config_of,
    processes_of,
    read_until,
    run,
    send,
    sending,
    served,
    started,
    starter,
)
from support.pseudo_terminal import terminal
from support.service import key_for, prepare
from support.timeouts import BOUND

import samovar
from samovard.store import key_file
from samovard.store.keys import KeyStore
from samovard.store.sqlite.database import Database


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Program]:
    """A service for tests that leave it as it is."""
    directory = Path(tempfile.mkdtemp(dir=root, prefix=""))
    with served(directory) as program:
        yield program
        assert program.end() == 0
    shutil.rmtree(directory)


def test_serve_says_where_and_how(service: Program) -> None:
    """The first lines tell address, identity, CLI, upstream, and what to try next."""
    assert "identity: none" in service.said
    assert "claude 2.1.330" in service.said
    assert "isolation: none" in service.said
    assert f"samovar send --target {service.address}" in service.said


def test_a_start_loads_only_what_it_needs() -> None:
    """Without tokens, certificates or a self-test: none of their libraries, which are slow."""
    loaded = run(sys.executable, "-c", "import sys, samovard.serving; print(*sys.modules)")
    names = set(loaded.stdout.split())
    assert "samovard.app" in names
    assert not names & {"aiohttp", "cryptography", "jwt", "samovard.standin"}


@pytest.mark.parametrize("listens", ["host", "unix"])
def test_a_busy_address_is_found_before_the_cli_is_tested(directory: Path, listens: str) -> None:
    """One line that names the address and the setting; the CLI, which is none, is not asked."""
    path = f"unix:{directory}/busy.sock"
    kind = socket.AF_INET if listens == "host" else socket.AF_UNIX
    with socket.socket(kind) as taken:
        taken.bind(("127.0.0.1", 0) if listens == "host" else path.removeprefix("unix:"))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}" if listens == "host" else path
        config = config_of(directory, Path("/nonexistent"))
        done = run(*SAMOVARD, "serve", "--config", str(config), SAMOVAR_SERVER__LISTEN=address)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert address in done.stderr
    assert "stop it, or set server.listen" in done.stderr


def test_a_home_that_takes_no_state_is_one_line(directory: Path) -> None:
    """It names the directory and the setting; the exit code says that it did not start."""
    home = directory / "home"
    home.touch()
    done = run(*SAMOVARD, "serve", HOME=str(home), SAMOVAR_SERVER__LISTEN="127.0.0.1:0")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert str(home) in done.stderr
    assert "set state.directory" in done.stderr


def test_send_prints_the_answer(service: Program) -> None:
    """`samovar send` prints the text and a newline, nothing else, and exits with 0."""
    done = send(service.address, "Say hello")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    lines = send(service.address, "Say hello", "--json").stdout.splitlines()
    events = [json.loads(line) for line in lines]
    assert events[0]["event"] == "TurnStarted"
    assert (events[-1]["event"], events[-1]["outcome"]) == ("TurnFinished", "completed")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_ends_it_with_0_and_nothing_is_left(directory: Path, number: int) -> None:
    """With idle processes, SIGTERM, SIGINT and SIGQUIT leave no process and exit with 0."""
    with served(directory) as program:
        for name in ("a", "b"):
            samovar.ask("Say x", target=program.address, session=name)
        assert len(processes_of(directory)) == 2
        assert program.end(number) == 0
        assert processes_of(directory) == []


def test_a_terminal_that_closes_ends_it_in_order(directory: Path) -> None:
    """The turn is told, its tools end with it, and the exit code is 0 without a terminal."""
    config = config_of(directory, asyncio.run(prepare(directory, fake=True)), drain_grace="200 ms")
    own = "import os; os.close(os.open(os.ttyname(0), os.O_RDWR)); "
    code = f"{own}from samovard.cli import main; main()"
    command = (*starter(), sys.executable, "-c", code, "serve", "--config", str(config))
    with terminal(directory, *command[1:], code=None) as shown:
        address = re.split(r"listens on | \(", shown.until("try: "))[1]
        tool = fake(v.grandchild(setsid=True, orphan=True), v.hang())
        with sending(address, tool) as turn:
            shown.hang_up()
            assert '"outcome": "interrupted"' in turn.communicate(timeout=BOUND)[0]
        assert shown.child.wait(BOUND) == 0
    assert processes_of(directory) == []


def test_a_signal_that_its_starter_ignored_is_ignored(directory: Path) -> None:
    """As under `nohup`: neither a hang-up nor Ctrl-C ends it, SIGTERM does."""
    config = config_of(directory, asyncio.run(prepare(directory, fake=True)))
    ignored = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
    with started(config, ignoring=ignored) as program:
        for number in ignored:
            program.child.send_signal(number)
        assert samovar.ask("Say still here", target=program.address).text == "still here"
        assert program.end() == 0
        assert program.child.stderr is not None
        assert b"reload" not in program.child.stderr.read()


def test_sighup_reloads_without_a_terminal(directory: Path) -> None:
    """Keys of the file are known then; a file that cannot be read changes nothing and is told.

    Settings need no signal: their file is looked at.
    """
    source, keys = directory / "source", directory / "keys"
    source.mkdir()

    async def another() -> str:
        key = await key_for(source, "acme")
        async with Database(f"sqlite:///{source / 'samovar.db'}") as database:
            keys.write_text(key_file.text(await KeyStore(database).list()))
        return key

    asyncio.run(another())
    pepper = {"SAMOVAR_AUTH__API_KEY__PEPPER": str(source / "pepper")}
    with served(directory, "--keys", str(keys), variables=pepper) as program:
        key = asyncio.run(another())
        program.child.send_signal(signal.SIGHUP)
        assert '"read": ["settings", "keys", "credential"]' in read_until(
            program.child, "reload.finished"
        )
        keys.write_text("no key")
        program.child.send_signal(signal.SIGHUP)
        assert '"part": "keys"' in read_until(program.child, "reload.finished")
        config = directory / "samovard.toml"
        config.write_text(f"{config.read_text()}\n[tenants.acme]\nqueue_limit = 3\n")
        assert '"read": ["settings"]' in read_until(program.child, "reload.finished")
        assert samovar.ask("Say x", target=program.address, api_key=key).text == "x"
        assert program.end() == 0


def test_a_running_turn_may_end_before_the_service_does(directory: Path) -> None:
    """Within the grace a turn ends as it would have, and new turns are refused."""
    gate = directory / "gate"
    with served(directory) as program:
        with sending(program.address, fake(v.gate(gate), v.text("whole"))) as turn:
            program.child.send_signal(signal.SIGTERM)
            read_until(program.child, "shutting down")
            late = send(program.address, "Say x", "--session", "late", "--deadline", "1")
            assert late.returncode in (3, 6)  # it no longer listens, or says that it goes
            gate.touch()
            assert "whole" in turn.communicate(timeout=BOUND)[0]
            assert turn.returncode == 0
        assert program.child.wait(BOUND) == 0
        assert processes_of(directory) == []


def test_a_stubborn_process_does_not_hold_the_service(directory: Path) -> None:
    """A process that ignores everything is killed within the stop budget; exit 0."""
    with served(directory, drain_grace="100 ms", stop_budget="4 s") as program:
        prompt = fake(v.ignore("eof", "term", "int"), v.never_ack(), v.hang())
        with sending(program.address, prompt):
            assert program.end() == 0
        assert processes_of(directory) == []


def test_a_killed_service_takes_its_processes_along(directory: Path) -> None:
    """After SIGKILL the agents die with the service; what a tool left behind is killed by
    the next start, and the conversation goes on."""
    with served(directory) as program:
        samovar.ask("Say one", target=program.address)
        orphan = fake(v.grandchild(setsid=True, orphan=True), v.text("done"))
        samovar.ask(orphan, target=program.address)
        before = processes_of(directory)
        program.child.kill()
        program.child.wait(BOUND)
    with served(directory) as program:
        assert not {*before} & {*processes_of(directory)}
        history = samovar.ask(fake(v.history()), target=program.address).text
        assert "Say one" in history
        assert program.end() == 0


def test_a_daemon_that_ends_by_itself_leaves_no_zombie(directory: Path) -> None:
    """The service adopts what loses its parent, and reaps it while its session lives on."""
    with served(directory) as program:
        tell = directory / "pid"
        left = v.grandchild(setsid=True, orphan=True, tell=str(tell))
        samovar.ask(fake(left, v.text("x")), target=program.address)
        pid = int(tell.read_text().split()[0])
        os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + BOUND
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end, "a zombie is left"
            select.select([], [], [], 0.05)
        assert len(processes_of(directory)) == 1
        assert program.end() == 0


def test_one_state_directory_serves_one_service(service: Program) -> None:
    """A second service on the same state refuses to start, in one line."""
    done = run(*SAMOVARD, "serve", "--config", str(service.config))
    assert done.returncode == 1
    assert "another samovard uses" in done.stderr
    assert samovar.ask("Say x", target=service.address).text == "x"


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


def test_a_server_without_a_disk_is_told_its_keys(directory: Path) -> None:
    """Keys made elsewhere with the same pepper are good from the first call on."""
    made, new = directory / "made", directory / "new"
    new.mkdir()
    state = {"SAMOVAR_STATE__DIRECTORY": str(made)}
    key = run(*SAMOVARD, "keys", "add", "acme", **state).stdout.strip()
    (new / "keys").write_text(run(*SAMOVARD, "keys", "export", **state).stdout)
    (new / "pepper").write_bytes((made / "pepper").read_bytes())
    with served(new, "--keys", str(new / "keys")) as program:
        assert "keys add TENANT" in program.said
        samovar.ask("hi", target=program.address, api_key=key)
        with pytest.raises(samovar.CredentialInvalid):
            samovar.ask("hi", target=program.address, api_key=key[:-1] + "?")


def test_a_file_of_keys_that_is_none_ends_the_start(directory: Path) -> None:
    """The mistake is one line; nothing is served."""
    (directory / "keys").write_text("samovar_id_secret\n")
    state = {"SAMOVAR_STATE__DIRECTORY": str(directory)}
    done = run(*SAMOVARD, "serve", "--keys", str(directory / "keys"), **state)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"samovard: {directory}/keys: line 1 is not a key of `samovard keys export`\n"
    )


def test_nobody_there_is_one_line_that_says_what_to_do(directory: Path) -> None:
    """`samovar send` to where nothing listens says how to start a service."""
    done = send(f"unix:{directory / 'none.sock'}", "Say x")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert '"samovard serve"' in done.stderr


def test_versions(directory: Path) -> None:
    """Both programs tell their version."""
    assert run(*SAMOVARD, "--version").stdout.startswith("samovard 0.")
    assert run(*SAMOVAR, "--version").stdout.startswith("samovar 0.")


@pytest.mark.parametrize("length", [60, 200])
def test_a_long_home_serves_as_any_other(directory: Path, length: int) -> None:
    """Sessions, keys, a restart, and the operator's client without a target."""
    home = directory / ("h" * (length - len(str(directory)) - 1))
    home.mkdir()
    binary = asyncio.run(prepare(directory, fake=True))
    state = home / ".local" / "state" / "samovar"
    state.mkdir(parents=True)
    (state / "self-test.json").write_bytes((directory / "self-test.json").read_bytes())
    config = config_of(directory, binary)
    config.write_text(re.sub(r"(?m)^(\[state\]|directory = .*)$", "", config.read_text()))
    try:
        for _ in range(2):
            with started(config, variables={"HOME": str(home)}) as program:
                assert samovar.ask("Say hello", target=program.address).text == "hello"
                top = run(*SAMOVAR, "top", "--once", "--json", HOME=str(home))
                assert (top.returncode, top.stderr) == (0, "")
                listed = run(*SAMOVARD, "keys", "list", HOME=str(home))
                assert (listed.returncode, listed.stderr) == (0, "")
                assert program.end() == 0
    finally:
        shutil.rmtree((state / "root").read_text())
