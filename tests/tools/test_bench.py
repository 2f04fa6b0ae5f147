"""The measurements run, answer rightly and say what they are to say. Not what is fast."""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from support.timeouts import BOUND

from bench import chart, counted, page, without
from bench.__main__ import main
from bench.figures import Figure, Part, Row
from bench.parts import PARTS
from bench.rounds import Sample, ratio
from samovard.edge import permits
from samovard.telemetry import facts
from samovard.telemetry.facts import CallFacts
from samovard.telemetry.recorder import NULL_RECORDER

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)  # a run has several parts, each of which may be slow


Figures = dict[str, dict[str, Any]]


def measured(*parts: str) -> Figures:
    """Run parts as shortly as they can be run, and return their figures by name."""
    command = [sys.executable, "-m", "bench", "--quick", *(f"--only={part}" for part in parts)]
    with tempfile.TemporaryDirectory(prefix="") as directory:
        environ = {"PATH": "/usr/bin:/bin", "HOME": directory, "TMPDIR": directory}
        done = subprocess.run(
            command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=6 * BOUND
        )
    assert done.returncode == 0, done.stderr + done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["claude"]
    return {figure["name"]: figure for figure in said["figures"]}


@pytest.fixture(scope="module")
def written() -> Figures:
    """Figures of the parts whose agent only writes, all of one run."""
    return measured("added", "calls", "events", "attach", "telemetry", "lists")


@pytest.fixture(scope="module")
def real() -> Figures:
    """Figures of the parts on the real CLI, all of one run: it is tested once."""
    return measured("turns", "launch-line", "interrupts", "deaths", "contention")


def test_the_broker_beside_the_stand_in() -> None:
    """Every answer comes whole through it, fifty at once too; each figure has its bound."""
    found = measured("broker")
    assert {name: (f["least"], f["most"]) for name, f in found.items() if "broker" in name} == {
        "broker: added to the first byte, p50": (None, 1.0),
        "broker: added to the first byte, p99": (None, 3.0),
        "broker: added to the gap of two pieces, p99": (None, 1.0),
        "broker: streams at once that came whole": (50, None),
    }
    assert found["broker: streams at once that came whole"]["value"] == 50


def bounded(figures: Figures) -> dict[str, tuple[float | None, float | None]]:
    """Return the bounds of those figures that have one, apart from rounds' own."""
    found = {
        name: (figure["least"], figure["most"])
        for name, figure in figures.items()
        if not name.startswith("off against no calls")
    }
    return {name: bounds for name, bounds in found.items() if any(bounds)}


def test_the_service_on_an_agent_that_only_writes(written: Figures) -> None:
    """What it adds, events, their replay: answers are right, figures stand beside bounds."""
    assert written["wrong answers"]["value"] == written["processes left"]["value"] == 0
    within = {name: figure for name, figure in written.items() if "telemetry" not in name}
    assert bounded(within) == {
        "added to a warm turn, p50": (None, 1.0),
        "added to a warm turn, p99": (None, 3.0),
        "calls of a warm turn": (None, 450),
        "of them from another file": (None, 200),
        "of them from another room": (None, 60),
        "events end to end": (100_000, None),
        "server CPU per event": (None, 8),
        "events against the Agent SDK": (2, None),
        "attach to the first replayed event, p50": (None, 5.0),
        "a page of one session, p50": (None, 50.0),
        "a page, to a turn alone": (None, 2.0),
        "a turn beside sessions listed, to in memory": (None, 1.5),
        "a turn beside sessions unknown, to in memory": (None, 1.5),
        "spans exported for each turn": (2, None),
    }


def test_telemetry_on_three_services(written: Figures) -> None:
    """On, off and without its calls: everything is exported, and the bounds are there."""
    assert written["spans exported for each turn"]["reached"]
    assert written["telemetry, server CPU more of a turn"]["most"] == 0.5
    assert "off against no calls, server CPU of a turn" in written


def test_what_is_taken_out_must_be_there() -> None:
    """A call that has another name now is missed aloud: else the measurement shows nothing."""
    with pytest.raises(AttributeError, match="gone"):
        without._replace(without, print, "gone")


def test_a_call_is_counted_where_it_comes_from() -> None:
    """As a crossing if that is another file, and as one between rooms."""
    free = permits.Permits()
    calls = counted.Calls()
    sys.setprofile(calls)
    asyncio.run(free.take("acme", 1.0))
    tokens = facts.TurnFacts(
        NULL_RECORDER, CallFacts.unwatched(time.monotonic, 0.0), "", "", ""
    ).tokens
    sys.setprofile(None)
    assert tokens.all_input == 0
    assert calls.all["edge"] == 2  # and what it asks whether it may
    assert not calls.crossings["edge"]
    assert calls.all["telemetry"] > calls.crossings["telemetry"] > 0
    assert not calls.between.total()


def test_the_calls_of_a_turn_cross_from_room_to_room(written: Figures) -> None:
    """There are fewer the further they go."""
    names = ("calls of a warm turn", "of them from another file", "of them from another room")
    every, files, rooms = (written[name]["value"] for name in names)
    assert every > files > rooms > 0


def test_turns_and_launch_lines_on_the_real_cli(real: Figures) -> None:
    """Every contender and every line answers rightly, and every process ends."""
    assert real["wrong answers"]["value"] == real["processes left"]["value"] == 0
    assert "the plainest line against the service's" in real


def test_bounds_on_the_real_cli(real: Figures) -> None:
    """Turns, interrupts, deaths and contention: figures stand beside bounds."""
    assert bounded(real) == {
        "warm turn against spawn per turn": (12, None),
        "warm turn against bare pipe": (None, 1.05),
        "interrupt to the end of the stream, p50": (None, 100.0),
        "interrupt to the end of the stream, p99": (None, 500.0),
        "death to the status at the caller, p99": (None, 250.0),
        "processes alive under contention": (4, None),
    }


def test_contention_on_the_real_cli(real: Figures) -> None:
    """More callers than slots: processes are counted, and there are turns."""
    assert 0 < real["processes alive under contention"]["value"] <= 6
    assert real["turns under contention"]["value"] > 0


def test_what_a_call_about_anothers_session_takes(directory: Path) -> None:
    """One line: the medians of a session of another tenant and of none, by method."""
    command = [sys.executable, "-m", "bench.equality", "--rounds", "1"]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "TMPDIR": str(directory)}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=6 * BOUND
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    kinds = {frozenset(medians) for medians in json.loads(line).values()}
    assert kinds == {frozenset({"another tenant's", "none"})}


def test_only_what_exists_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown part is one line that names those that there are."""
    with pytest.raises(typer.Exit):
        main(only=["nothing"])
    (line,) = capsys.readouterr().err.splitlines()
    assert all(part in line for part in PARTS)


def test_a_page_is_written_from_a_whole_run_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Half a run writes nothing."""
    with pytest.raises(typer.Exit):
        main(quick=True, write=True)
    assert "--write needs the whole run" in capsys.readouterr().err


def test_the_page_has_its_marks() -> None:
    """What stands between the marks can be written anew, and nothing else changes."""
    text = page.PAGE.read_text()
    assert page.put(page.put(text, "other"), "new") == page.put(text, "new")
    with pytest.raises(ValueError, match="marks"):
        page.put("no marks", "new")


def test_the_chart_is_whole_in_itself() -> None:
    """An SVG that loads nothing, with a bar and a label for each contender."""
    part = Part("Turns <now>", [], bars={"Samovar": 20.0, "spawn & wait": 400.0}, unit="ms")
    drawn = chart.drawn([part, Part("no bars", [])])
    root = ElementTree.fromstring(drawn)
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words == ["Turns <now>", "Samovar", "20.00 ms", "spawn & wait", "400 ms"]
    assert drawn.count("http") == 1
    assert "prefers-color-scheme: dark" in drawn
    assert len(drawn.encode()) < 20_000


def test_what_slows_a_whole_round_cancels_out() -> None:
    """A ratio is the median of the rounds' own ratios."""
    of, to = Sample([[2.0], [20.0], [6.0]]), Sample([[1.0], [10.0], [3.0]])
    assert ratio(of, to) == 2.0


def test_a_figure_tells_whether_its_bound_is_kept() -> None:
    """At least and at most include the bound; without one there is nothing to keep."""
    assert Figure("", 12.0, least=12.0).reached
    assert not Figure("", 11.9, least=12.0).reached
    assert Figure("", 1.0, most=1.0).reached
    assert not Figure("", 1.1, most=1.0).reached
    assert Figure("", 1.0).reached is None
    assert Row("", []).cells == []
