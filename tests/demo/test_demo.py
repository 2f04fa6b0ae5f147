"""The demonstration's traces: what they hold, how they are drawn, and where to."""

import asyncio
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from support.service import prepare
from support.timeouts import BOUND

import samovar
from samovard.agent import root
from samovard.app import running
from samovard.demo import picture, terminal, traced
from samovard.demo import run as demonstration
from samovard.demo.report import Findings, Warm, show_spawned, show_table, show_turn
from samovard.demo.waterfall import Span, Waterfall, waterfall
from samovard.serving import on_stand_in
from samovard.settings import Settings
from samovard.standin import StandIn

SVG = "{http://www.w3.org/2000/svg}"
MS = 1_000_000
BEGIN = 1_700_000_000_000_000_000


def span(name: str, own: str, parent: str, begin: int, end: int, **more: object) -> Span:
    """Makes a span of one trace; times in milliseconds since the call came in."""
    given = {name.replace("__", "."): value for name, value in more.items()}
    events = tuple((n, BEGIN + at * MS) for n, at in given.pop("events", {}).items())  # type: ignore[attr-defined]  # a mapping
    return Span(name, "t1", own, parent, BEGIN + begin * MS, BEGIN + end * MS, given, events)  # type: ignore[arg-type]  # plain values


def turn() -> Waterfall:
    """Gives a turn with a model request, a tool below it, and somebody else's span."""
    stages = {"receive": 0, "admit": 10, "process_ready": 60, "finish": 190, "deliver": 200}
    call = span(
        "samovar.v1.Session/Send", "a", "", 0, 200, samovar__start_mode="warm", events=stages
    )
    other = Span("samovar.v1.Session/Send", "t2", "x", "a", BEGIN, BEGIN + MS, {})
    spans = [
        span("claude_code.llm_request", "d", "c", 80, 120, ttft_ms=25),
        span("claude_code.tool", "e", "c", 120, 150, gen_ai__tool__name="Bash"),
        span("claude_code.interaction", "c", "b", 70, 195),
        span("invoke_agent <default>", "b", "a", 60, 190),
        other,
        call,
    ]
    return waterfall("Say <OK>", 42, call, spans)


def test_a_waterfall_is_the_tree_of_one_trace() -> None:
    """Spans stand below their parents, in time, whatever order they came in."""
    drawn = turn()
    assert [(bar.depth, bar.name, bar.kind) for bar in drawn.bars] == [
        (0, "samovar.v1.Session/Send", "call"),
        (1, "invoke_agent <default>", "agent"),
        (2, "claude_code.interaction", "agent"),
        (3, "claude_code.llm_request", "model"),
        (3, "claude_code.tool Bash", "tool"),
    ]
    request = drawn.bars[3]
    assert (request.begin, request.first, request.end) == (80, 105, 120)
    assert request.ttft == "25 ms"


def test_a_waterfalls_stages_add_up() -> None:
    """The stages follow each other from the call's begin to its end."""
    drawn = turn()
    spent = {stage.name: stage.end - stage.begin for stage in drawn.stages}
    assert spent == {"admit": 10, "process_ready": 50, "finish": 130, "deliver": 10}
    assert sum(spent.values()) == drawn.total == 200


def test_figures_stand_beside_what_a_newcomer_knows() -> None:
    """Spawning, and what keeping a process alive by hand gave; no goal of the project's own."""
    turns = [Warm(q, a, a, 7, "warm", 0.01, 0.1) for q, a in demonstration.QUESTIONS.items()]
    spawned = [(turn.answer, 0.4) for turn in turns]
    findings = Findings(turns, [0.02], spawned, idle=5.0, whole_conversation=True)
    out = StringIO()
    show_table(Console(file=out, width=100), findings)
    shown = re.findall(r"│ (.*?) +│ (.*?) +│", out.getvalue())
    assert shown[-4:] == [
        ("a process for each message, median", "400.0 ms"),
        ("a warm turn, 5 s after the last", "100.0 ms, 4.0 times faster"),
        ("a warm turn, right behind the last", "20.0 ms, 20.0 times faster"),
        ("a process kept alive by hand, as reported", "2.1 times faster"),
    ]
    told = findings.as_json()
    assert (told["speedup"], told["busy_speedup"], told["by_hand_speedup"]) == (4.0, 20.0, 2.1)
    for words in (out.getvalue(), str(told)):
        assert not re.search("goal|bound|missed|reached", words)


def test_what_a_model_says_is_no_markup() -> None:
    """Its words are shown as they are."""
    out = StringIO()
    console = Console(file=out, width=100)
    show_turn(console, Warm("Say OK1", "[bold]OK[/x]", "OK1", 7, "warm", 0.01, 0.1))
    show_spawned(console, "Say OK1", "[bold]OK[/x]", 0.4)
    assert out.getvalue().count("[bold]OK[/x]") == 2


def test_the_picture_is_whole_in_itself() -> None:
    """An SVG that loads nothing and names every stage, span, note and trace id."""
    drawn = picture.svg([turn()])
    words = [text.text for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    expected = ["Say <OK>", "200.0 ms", "warm, pid 42", "trace t1", "process_ready 50.0 ms"]
    assert {*expected, "claude_code.tool Bash", "first token: 25 ms"} <= set(words)
    assert drawn.count("http") == 1
    assert "prefers-color-scheme: dark" in drawn


def test_the_kind_of_picture_is_the_suffixs(directory: Path) -> None:
    """An `.svg` is the picture alone, an `.html` a page that holds it."""
    for name, begin in (("t.svg", "<svg "), ("t.html", "<!doctype html>")):
        picture.write(directory / name, [turn()])
        text = (directory / name).read_text()
        assert text.startswith(begin)
        assert text.count("<svg ") == 1
        assert "src=" not in text
        assert "href=" not in text


def test_the_terminal_shows_the_same() -> None:
    """Every span has a bar in its place, with its duration; stages have theirs in words."""
    said = StringIO()
    terminal.show(Console(file=said, width=100), turn())
    lines = said.getvalue().splitlines()
    (tool,) = (line for line in lines if "claude_code.tool Bash" in line)
    assert tool.endswith("30.0 ms")
    assert tool.index("█") == terminal.NAME + round(49 * 120 / 200)
    (request,) = (line for line in lines if "claude_code.llm_request" in line)
    assert "ttft 25 ms ░" in request
    assert max(map(len, lines)) <= 100
    assert "  admit 10.0  process_ready 50.0  finish 130.0  deliver 10.0" in said.getvalue()


def test_a_turn_is_one_line_however_narrow_the_terminal() -> None:
    """The terminal wraps it, a pipe does not."""
    said = StringIO()
    turn = Warm("Say OK1", "OK1", "OK1", 42, "warm", 0.01, 0.02)
    show_turn(Console(file=said, width=20), turn)
    assert said.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("t.png", "it must end in .svg or .html"),
        ("missing/t.svg", "No such file or directory"),
        ("is-a-directory.svg", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_the_demonstration(
    name: str, why: str, directory: Path
) -> None:
    """One line, at once, and no file is left."""
    (directory / "is-a-directory.svg").mkdir()
    path = directory / name
    command = [sys.executable, "-m", "samovard", "demo", "--trace", str(path)]
    done = subprocess.run(
        command, env={"HOME": "/home/somebody"}, capture_output=True, text=True, timeout=BOUND
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"samovard: --trace: {path}: {why}\n"
    assert not path.is_file()


def test_what_can_be_written_is_left_as_it_was(directory: Path) -> None:
    """Trying makes no file, and keeps one that is there."""
    picture.check(directory / "new.svg")
    old = directory / "old.html"
    old.write_text("old")
    picture.check(old)
    assert [path.name for path in directory.iterdir()] == ["old.html"]
    assert old.read_text() == "old"


def test_the_demonstration_needs_nothing_of_the_users(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A home of 60 bytes, a TMPDIR of 90, settings that are refused: it answers, and writes
    neither here nor there."""
    binary = asyncio.run(prepare(directory))
    for name, length in {"HOME": 60, "TMPDIR": 90}.items():
        place = directory / (name[0] * (length - len(str(directory)) - 1))
        place.mkdir()
        monkeypatch.setenv(name, str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("SAMOVAR_POOL__SLOTS", "none")
    monkeypatch.setenv("SAMOVAR_STATE__DIRECTORY", str(directory / "state"))
    monkeypatch.setenv("SAMOVAR_AGENT__CLI", str(binary))
    before = set(directory.rglob("*"))

    async def story() -> None:
        with root.temporary() as made:
            for note in (*directory.glob("cli-*"), directory / "self-test.json"):
                shutil.copy2(note, made)
            async with StandIn() as stand_in:
                settings = on_stand_in(demonstration.temporary(None, made), stand_in)
                async with (
                    running(settings) as service,
                    samovar.AsyncClient(service.address, deadline=BOUND) as client,
                ):
                    assert (await client.ask("Say OK1")).text == "OK1"

    asyncio.run(story())
    assert set(directory.rglob("*")) == before


def test_traced_turns_are_the_agents_as_well(directory: Path) -> None:
    """The real CLI: one process, a trace for each turn, the model's requests and the tool."""

    async def story() -> list[Waterfall]:
        binary = await prepare(directory)
        async with StandIn() as stand_in:
            given = {
                "server": {"listen": "127.0.0.1:0"},
                "state": {"directory": directory},
                "agent": {"cli": binary},
            }
            settings = on_stand_in(Settings.model_validate(given), stand_in)
            return await traced.converse(settings, Console(file=StringIO()), live=False)

    drawn = asyncio.run(story())
    assert [one.start_mode for one in drawn] == ["cold", "warm", "warm"]
    assert len({one.pid for one in drawn}) == 1
    assert len({one.trace_id for one in drawn}) == len(drawn)
    assert all(one.whole for one in drawn)
    assert all(any(bar.ttft for bar in one.bars) for one in drawn)
    assert "claude_code.tool Bash" in {bar.name for bar in drawn[-1].bars}
