"""`samovar chat` and its kin as programs: on a pseudo-terminal, in a pipe, in a shell."""

import json
import re
import stat
import subprocess
from pathlib import Path

import pytest
from fake_claude import fake
from fake_claude import verbs as v
from support.pseudo_terminal import ESCAPE, MAIN, OWN, READS, piped, serve, terminal
from support.service import Running

import samovar

WITHOUT = "import sys; sys.modules['prompt_toolkit'] = None; "


def test_a_conversation_on_a_terminal(directory: Path) -> None:
    """Markdown is drawn, the process stays, lists are tables, /quit ends with 0."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address) as chat:
            assert "samovar chat --session chat-" in chat.until(READS)
            shown = chat.say("Say **hello**")
            assert "**" not in shown.rpartition("Say **hello**")[2]  # the line may be drawn twice
            assert "hello" in shown and "USD" in shown
            assert "Bash" in chat.say(fake(v.tool(), v.text("more")))
            listed = chat.say("/sessions")
            assert "SESSION" in listed and "warm" in listed
            chat.press("/quit\r")
            assert chat.exit_code() == 0
            assert "\x1b[1mhello" in chat.raw
        history = directory / "state" / "samovar" / "history"
        assert "Say **hello**" in history.read_text()
        assert stat.S_IMODE(history.stat().st_mode) == 0o600

    serve(directory, story)


def test_ctrl_c_interrupts_the_turn_and_keeps_the_session(directory: Path) -> None:
    """After Ctrl-C in a long turn the same process answers the next message."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address, "--session", "s") as chat:
            chat.until(READS)
            pid = re.findall(r"(\d+) +\r\n", chat.say(fake(v.whoami())))[0]
            chat.press(f"{fake(v.text('begun'), v.hang())}\r")
            chat.until("Ctrl-C interrupts")
            chat.until("begun")
            chat.press("\x03")
            assert "interrupted" in chat.until(READS)
            assert re.findall(r"(\d+) +\r\n", chat.say(fake(v.whoami())))[0] == pid
            chat.press("\x04")
            assert chat.exit_code() == 0

    serve(directory, story)


def test_a_second_ctrl_c_leaves_the_turn(directory: Path) -> None:
    """If the agent does not stop, the person may go on at once."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address) as chat:
            chat.until(READS)
            chat.press(f"{fake(v.ack_only(), v.text('begun'), v.hang())}\r")
            chat.until("Ctrl-C interrupts")
            chat.until("begun")
            chat.press("\x03")
            chat.until("Ctrl-C again leaves")
            chat.press("\x03")
            assert "left: " in chat.until(READS)
            chat.press("\x04")
            assert chat.exit_code() == 0

    serve(directory, story)


def test_ctrl_c_at_the_prompt_clears_or_tells(directory: Path) -> None:
    """What was typed is cleared; where nothing was typed, the way out is told."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address) as chat:
            chat.until(READS)
            chat.press("nonsense")
            chat.until("nonsense")
            chat.press("\x03/qui\t")
            chat.until("/qui")
            chat.until("t")
            chat.press("\r")
            assert chat.exit_code() == 0
            assert "I am" not in chat.raw
        with terminal(directory, "chat", "--target", run.address) as chat:
            chat.until(READS)
            chat.press("\x03")
            assert "/quit ends the chat" in chat.until(READS)
            chat.press("\x04")
            assert chat.exit_code() == 0

    serve(directory, story)


def test_no_color_is_honoured(directory: Path) -> None:
    """With NO_COLOR no colour is shown, with TERM=dumb nothing but text."""

    def story(run: Running) -> None:
        prompt = fake(v.text("```python\nx = 1\n```"))
        with terminal(directory, "chat", "--target", run.address, NO_COLOR="1") as chat:
            chat.until(READS)
            assert "x = 1" in chat.say(prompt)
            chat.press("\x04")
            assert chat.exit_code() == 0
            assert not re.search(r"\x1b\[[0-9;]*[34][0-9]", chat.raw)
        with terminal(directory, "chat", "--target", run.address, TERM="dumb") as chat:
            chat.until("> ")
            chat.press("Say plain\n")
            chat.until("plain")
            chat.until("> ")
            chat.press("\x04")
            assert chat.exit_code() == 0
            assert "\x1b" not in chat.raw

    serve(directory, story)


def test_without_the_extra_a_terminal_is_told_and_a_pipe_works(directory: Path) -> None:
    """One line says what to install; in a pipe nothing is needed."""

    def story(run: Running) -> None:
        with terminal(directory, "chat", "--target", run.address, code=f"{WITHOUT}{OWN}") as chat:
            assert chat.exit_code() == 1
            assert 'pip install "samovar[chat]"' in chat.raw and chat.raw.count("\n") == 1
        done = piped(
            directory, "chat", "--target", run.address, code=WITHOUT + MAIN, text="Say a\n"
        )
        assert (done.returncode, done.stdout) == (0, "a\n")

    serve(directory, story)


def test_a_pipe_is_one_message_a_line(directory: Path) -> None:
    """Answers are plain text on stdout, in order, of one conversation; the rest on stderr."""

    def story(run: Running) -> None:
        text = f"Say **one**\n\n/quit\n{fake(v.history())}"
        done = piped(directory, "chat", "--target", run.address, text=text)
        assert done.returncode == 0
        one, slash, history = done.stdout.splitlines()
        assert (one, slash) == ("**one**", "/quit")
        assert json.loads(history)[0] == "Say **one**"
        assert "\x1b" not in done.stdout + done.stderr
        assert re.fullmatch(r"samovar: session chat-[0-9a-f]{8}: .*\n", done.stderr)

    serve(directory, story)


def test_a_failed_turn_in_a_pipe_is_an_exit_code(directory: Path) -> None:
    """The lines behind it are answered, and the exit code is 1."""

    def story(run: Running) -> None:
        text = f"{fake(v.api_error())}\nSay two\n"
        done = piped(directory, "chat", "--target", run.address, "--session", "s", text=text)
        assert done.returncode == 1
        assert done.stdout.endswith("two\n")
        assert "overloaded" in done.stderr

    serve(directory, story)


def test_nobody_there_is_one_line(directory: Path) -> None:
    """Without a service `samovar chat` says how to start one, and exits with 3."""
    done = piped(directory, "chat", "--target", f"unix:{directory / 'none'}", text="Say x")
    assert done.returncode == 3
    assert '"samovard serve"' in done.stderr and done.stderr.count("\n") == 1


def test_sessions_are_a_table_on_a_terminal_and_lines_in_a_pipe(directory: Path) -> None:
    """`list` has a header for people only; `show` names its fields; both have JSON."""

    def story(run: Running) -> None:
        with samovar.Client(run.address) as client:
            client.ask("Say x", session="s")
        to = ("--target", run.address)
        with terminal(directory, "sessions", "list", *to) as listed:
            assert listed.exit_code() == 0
            assert ESCAPE.sub("", listed.raw).split()[:2] == ["SESSION", "STATE"]
        cells = piped(directory, "sessions", "list", *to).stdout.rstrip("\n").split("\t")
        assert cells[:3] == ["s", "warm", "1"]
        shown = piped(directory, "sessions", "show", "s", *to).stdout
        assert "turns    1\n" in shown
        for command in (("list",), ("show", "s")):
            found = piped(directory, "sessions", *command, "--json", *to).stdout
            assert json.loads(found)["session_id"] == "s"

    serve(directory, story)


@pytest.mark.parametrize(
    "line", ["samovar sessions show ", "samovar sessions close d", "samovar chat --session d"]
)
def test_sessions_are_completed(directory: Path, line: str) -> None:
    """A shell is given the names of sessions; nothing, and no noise, if nobody answers."""
    code = f"import sys; sys.argv[0] = 'samovar'; {MAIN}"

    def complete(target: str) -> "subprocess.CompletedProcess[str]":
        return piped(
            directory,
            code=code,
            _SAMOVAR_COMPLETE="complete_bash",
            COMP_WORDS=line,
            COMP_CWORD=str(len(line.split(" ")) - 1),
            SAMOVAR_TARGET=target,
        )

    def story(run: Running) -> None:
        with samovar.Client(run.address) as client:
            client.ask("Say x", session="demo")
        assert complete(run.address).stdout.split() == ["demo"]

    serve(directory, story)
    nothing = complete(f"unix:{directory / 'none'}")
    assert (nothing.stdout.strip(), nothing.stderr) == ("", "")


def test_a_shell_can_be_taught(directory: Path) -> None:
    """`--show-completion` prints what a shell needs."""
    code = f"import sys; sys.argv[0] = 'samovar'; {MAIN}"
    done = piped(
        directory,
        "--show-completion",
        "bash",
        code=code,
        _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1",
    )
    assert done.returncode == 0
    assert "_SAMOVAR_COMPLETE=complete_bash" in done.stdout
