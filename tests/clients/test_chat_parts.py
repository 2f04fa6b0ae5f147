"""What is seen of a turn: its parts, as plain text, and on a console."""

import io
import json
import os
import signal
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text
from support.timeouts import BOUND

import samovar
from samovar import listing
from samovar.chat import state_directory
from samovar.chat.asking import Person, described, verdict_of
from samovar.chat.conversation import Verdict
from samovar.chat.parts import LIMIT, Called, Part, Parts, Said, divide, short
from samovar.chat.plain import Plain
from samovar.chat.prompt import LARGEST_HISTORY, history_in
from samovar.chat.screen import Screen, _Tail
from samovar.chat.stopping import stopping
from samovar.reach import Place
from samovar.words import clean, clean_line, said


def text(value: str, message: str = "m", block: int = 0, parent: str = "") -> samovar.TextDelta:
    return samovar.TextDelta(message, block, value, sequence=1, time=0.0, parent_tool_use_id=parent)


def tool(name: str, **given: object) -> samovar.ToolUse:
    return samovar.ToolUse(name, name.capitalize(), json.dumps(given), sequence=1, time=0.0)


def result(name: str, error: str = "") -> samovar.ToolResult:
    return samovar.ToolResult(name, error, bool(error), sequence=1, time=0.0)


def finished(outcome: samovar.Outcome = samovar.Outcome.COMPLETED) -> samovar.TurnFinished:
    usage = samovar.Usage(input_tokens=1, cache_read_input_tokens=2, output_tokens=4)
    return samovar.TurnFinished(outcome=outcome, result="", usage=usage, sequence=9, time=0.0)


def parts_of(*events: samovar.Event) -> Parts:
    parts = Parts()
    for event in events:
        parts.take(event)
    return parts


def looks(parts: "list[Part] | tuple[Part, ...]") -> list[str]:
    return [p.text if isinstance(p, Said) else f"{p.line()} {p.ending()}".strip() for p in parts]


def test_parts_come_in_order() -> None:
    """Pieces of a block are one text; a tool stands between the texts around it."""
    parts = parts_of(text("a"), text("b"), tool("bash", command="ls"), text("c", "n"))
    assert looks(parts.open()) == ["ab", "Bash ls", "c"]


def test_what_came_before_a_returned_tool_is_settled() -> None:
    """A running tool holds back what follows it; a returned one settles what came before."""
    parts = parts_of(text("a"), tool("one"), tool("two"), result("two"))
    assert parts.settle() == []
    parts.take(result("one", "no\nsuch"))
    parts.take(text("b", "n"))
    assert looks(parts.settle()) == ["a", "One error: no such", "Two ok"]
    assert looks(parts.end()) == ["b"]
    assert parts.open() == ()


def test_abandoned_blocks_are_taken_back() -> None:
    """Of the message that broke off the void blocks go, others stay."""
    void = samovar.BlocksAbandoned("m", 1, sequence=1, time=0.0)
    parts = parts_of(text("a"), text("b", block=1), text("c", "n"), void)
    assert looks(parts.open()) == ["a", "c"]


def test_what_a_sub_agent_says_is_no_answer() -> None:
    """Its text is not shown."""
    assert parts_of(text("secret", parent="task")).open() == ()


def test_a_long_text_is_settled_piece_by_piece() -> None:
    """What may still change stays small, however long the answer."""
    parts = parts_of(*(text("word " * 99 + "\n\n") for _ in range(99)))
    assert sum(len(p.text) for p in parts.open()[-1:] if isinstance(p, Said)) <= LIMIT
    settled = parts.settle()
    assert len(settled) > 5
    assert "".join(looks([*settled, *parts.end()])) == ("word " * 99 + "\n\n") * 99


@given(st.text(alphabet="ab \n", max_size=200), st.integers(1, 50))
def test_divided_text_is_whole(value: str, least: int) -> None:
    """Without fences nothing is added or lost."""
    assert "".join(divide(value, least)) == value


def test_a_text_is_divided_between_blocks() -> None:
    """It is divided at the first blank line that is far enough and in no fence."""
    assert divide("aaaa\n\nb\n\nc", 3) == ("aaaa\n\n", "b\n\nc")
    fenced = "x\n```py\n1\n\n2\n```\n\ny"
    assert divide(fenced, 3) == ("x\n```py\n1\n\n2\n```\n\n", "y")


def test_a_fence_is_opened_again() -> None:
    """If it must be divided within a fence, both halves have one."""
    assert divide("```py\n1\n2\n3\n", 8) == ("```py\n1\n```\n", "```py\n2\n3\n")
    assert divide("~~~~\n~~~\n2\n3\n", 8) == ("~~~~\n~~~\n~~~~\n", "~~~~\n2\n3\n")
    endless = f"```{'x' * 5000}\n" + "y\n" * 3000
    assert len(divide(endless, 4096)[1]) < len(endless) - 4096


@pytest.mark.parametrize(
    ("given_json", "shown"),
    [
        ('{"command": "ls  -l\\n/"}', "ls -l /"),
        ('{"timeout": 3, "file_path": "/a"}', "/a"),
        ('{"n": 3}', '{"n": 3}'),
        ("{}", ""),
        ("[1]", "[1]"),
        ('{"cut', '{"cut'),
        ('{"command": "\\u001b[2Jx"}', "[2Jx"),
        ('{"command": "' + "x" * 99 + '"}', "x" * 59 + "…"),
    ],
)
def test_tool_input_is_short(given_json: str, shown: str) -> None:
    """The field that tells most, in one short line that no terminal obeys."""
    assert short(given_json) == shown


def test_terminals_are_told_nothing() -> None:
    """No escape, no carriage return, no C1 control of the agent reaches a terminal."""
    assert clean("a\x1b[31mb\r\x9b2Jc\n\td") == "a[31mb2Jc\n\td"
    assert clean_line(" a\n\x07b ") == "a b"
    assert said(samovar.SamovarError("a\n\x1bb"), Place("x:1")) == "a b"


def test_plain_is_text_on_one_stream_and_the_rest_on_the_other() -> None:
    """A pipe gets the answer verbatim; each text begins on a line of its own."""
    out, err = io.StringIO(), io.StringIO()
    with Plain(out, err).turn() as take:
        take(text("**a**\x1b"))
        take(tool("bash", command="ls"))
        take(result("bash"))
        take(text("b", "n"))
        take(finished(samovar.Outcome.INTERRUPTED))
    assert out.getvalue() == "**a**\x1b\nb\n"
    assert err.getvalue() == "samovar: Bash ls: ok\nsamovar: interrupted\n"


def drawn(*events: samovar.Event, height: int = 24, terminal: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out, width=60, height=height, force_terminal=terminal, color_system=None, _environ={}
    )
    with Screen(console, lambda: 1.0).turn() as take:
        for event in events:
            take(event)
    return out.getvalue()


def test_a_screen_is_left_with_all_of_the_turn() -> None:
    """Markdown, a line for each tool, and a last line with tokens and time."""
    shown = drawn(text("**bold**"), tool("bash", command="ls"), result("bash"), finished())
    lines = [line.rstrip() for line in shown.splitlines()]
    assert lines[:3] == ["bold", "", "Bash ls  ok"]
    assert "0.0 s · 3 in, 4 out · 0.0000 USD" in lines


def test_a_broken_turn_leaves_what_there_was() -> None:
    """Without an end the text stays on the screen."""
    assert "half" in drawn(text("half"))


def test_a_link_shows_where_it_leads() -> None:
    """The address is shown, and the terminal is given no link."""
    shown = drawn(text("[here](http://samovar.example)"), finished(), terminal=True)
    assert "http://samovar.example" in shown
    assert "\x1b]8" not in shown


def test_a_growing_text_has_no_more_lines_than_the_screen() -> None:
    """Of a long text the last lines are drawn, so that it can be drawn over again."""
    console = Console(file=io.StringIO(), width=20, height=5)
    whole = Text("\n".join(map(str, range(50))))
    lines = console.render_lines(_Tail(whole), pad=False)
    assert ["".join(segment.text for segment in line) for line in lines] == [
        "46",
        "47",
        "48",
        "49",
    ]


def test_called_shows_that_it_runs() -> None:
    """A tool that has not returned has no ending."""
    called = Called(tool("bash"))
    assert (called.ending(), called.whole, called.line()) == ("", False, "Bash")


def test_a_history_is_the_users_own(directory: Path) -> None:
    """It is made with its directories, and nobody else may read it, even if they could."""
    state = directory / "state" / "samovar"
    history_in(state).append_string("secret")
    path = state / "history"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    path.chmod(0o644)
    assert list(history_in(state).load_history_strings()) == ["secret"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_large_history_is_cut_between_entries(directory: Path) -> None:
    """The newest half stays, in whole entries."""
    history = history_in(directory)
    line = "x" * 9000
    for number in range(130):
        history.store_string(f"{number} {line}")
    assert (directory / "history").stat().st_size > LARGEST_HISTORY
    kept = list(history_in(directory).load_history_strings())
    assert (directory / "history").stat().st_size <= LARGEST_HISTORY // 2
    assert kept[0] == f"129 {line}"
    assert all(entry.endswith(f" {line}") for entry in kept)
    assert len(kept) > 50


def test_state_is_where_the_specification_says() -> None:
    """XDG_STATE_HOME, else the home; nowhere if neither is a path."""
    assert state_directory({"XDG_STATE_HOME": "/x", "HOME": "/h"}) == Path("/x/samovar")
    assert state_directory({"XDG_STATE_HOME": "x", "HOME": "/h"}) == Path("/h/.local/state/samovar")
    assert state_directory({}) is None


def test_ctrl_c_does_one_thing_after_the_other() -> None:
    """The first press does the first action, the second need not wait for it, more do nothing."""
    first, second, go = threading.Event(), threading.Event(), threading.Event()

    def begin() -> None:
        first.set()
        go.wait(BOUND)

    with stopping(begin, second.set):
        os.kill(os.getpid(), signal.SIGINT)
        assert first.wait(BOUND) and not second.is_set()
        os.kill(os.getpid(), signal.SIGINT)
        assert second.wait(BOUND)
        os.kill(os.getpid(), signal.SIGINT)
        go.set()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_a_session_as_fields_and_as_a_line() -> None:
    """Fields leave out what is not set; a line has seven cells."""
    session = samovar.Session("s", "warm", "p", "", "", 2, samovar.Usage(), 0.0, 60.0, 0.0)
    shown = list(listing.fields(session))
    assert "session  s" in shown and "turns    2" in shown
    assert not any(line.startswith(("model", "turn ", "expires")) for line in shown)
    assert listing.line(session) == "s\twarm\t2\t0.0000\tp\t\t1970-01-01T00:01:00+00:00"


def request(given: object, **fields: Any) -> samovar.PermissionRequested:
    text = given if isinstance(given, str) else json.dumps(given)
    asked: dict[str, Any] = {
        "permission_id": "p",
        "tool_use_id": "u",
        "tool_name": "Bash",
        "input_json": text,
    }
    asked |= {"title": "", "reason": "", "expire_time": 0.0, "sequence": 1, "time": 0.0} | fields
    return samovar.PermissionRequested(**asked)


@pytest.mark.parametrize(
    ("line", "verdict"),
    [
        ("y\n", Verdict(allowed=True)),
        (" YES \n", Verdict(allowed=True)),
        ("n\n", Verdict(allowed=False)),
        ("no\n", Verdict(allowed=False)),
        ("no, use /tmp\n", Verdict(allowed=False, why="use /tmp")),
        ("n too risky\n", Verdict(allowed=False, why="too risky")),
        ("\n", None),
        ("yes but only once\n", None),
        ("yn\n", None),
        ("never\n", None),
    ],
)
def test_only_a_plain_yes_allows(line: str, verdict: Verdict | None) -> None:
    """Enter alone, or a yes with a condition, is no answer; a no may say why."""
    assert verdict_of(line) == verdict


def test_a_question_shows_what_the_tool_is_given() -> None:
    """Name and input in whole, line by line, nothing of it hidden or obeyed."""
    given = {"command": "ls\x1b[2K\nrm \u202etxt", "timeout": 3}
    lines = described(request(given, reason="why", parent_tool_use_id="t"), whole=False)
    assert lines == [
        "a sub-agent asks to use Bash",
        "why",
        "  command: ls\\x1b[2K",
        "    rm \\u202etxt",
        "  timeout: 3",
    ]


def test_a_long_input_says_that_it_is_cut() -> None:
    """What is not shown is told, and shown when that is asked for."""
    long = request({"content": "x" * 1000 + "\n" + "line\n" * 100}, input_truncated_bytes=7)
    cut = described(long, whole=False)
    assert len(cut) < 30
    assert "s shows all" in cut[-2] and "7 bytes" in cut[-1]
    assert len(described(long, whole=True)) > 100
    assert "cut{" in "".join(described(request("cut{"), whole=False))


def test_a_person_is_asked_until_there_is_an_answer() -> None:
    """What is no answer is asked again; a question that is over is given up."""
    out, err = io.StringIO(), io.StringIO()
    lines: list[str | None] = ["what\n", "s\n", "y\n"]
    person = Person(Plain(out, err), lambda question, over: lines.pop(0))
    assert person.decide(request({"command": "ls"}), lambda: False) == Verdict(allowed=True)
    assert err.getvalue().count("asks to use Bash") == 3
    assert Person(Plain(out, err), lambda *_: None).decide(request({}), lambda: True) is None


def test_texts_before_a_question_are_left_on_the_screen() -> None:
    """What was said so far can be read while a person thinks; the tool is still drawn."""
    parts = parts_of(text("a"), text("b", "n"), tool("bash", command="ls"), text("c", "o"))
    assert looks(parts.lead()) == ["a", "b"]
    assert looks(parts.open()) == ["Bash ls", "c"]
    assert parts.lead() == []
