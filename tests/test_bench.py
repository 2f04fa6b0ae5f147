"""The measurements run, answer rightly and say what they are to say. Not what is fast."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import typer
from bounds import BOUND

from bench import chart, page, without
from bench.__main__ import main
from bench.figures import Figure, Part, Row
from bench.parts import PARTS
from bench.rounds import Sample, ratio

ROOT = Path(__file__).parent.parent


def measured(directory: Path, *parts: str) -> dict[str, dict[str, Any]]:
    """Runs parts as shortly as they can be run, and gives their figures by name."""
    command = [sys.executable, "-m", "bench", "--quick", *(f"--only={part}" for part in parts)]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "TMPDIR": str(directory)}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=2 * BOUND
    )
    assert done.returncode == 0, done.stderr + done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["claude"]
    return {figure["name"]: figure for figure in said["figures"]}


def bounded(figures: dict[str, dict[str, Any]]) -> dict[str, tuple[float | None, float | None]]:
    """Gives the bounds of those figures that have one."""
    found = {name: (figure["least"], figure["most"]) for name, figure in figures.items()}
    return {name: bounds for name, bounds in found.items() if any(bounds)}


def test_the_service_on_an_agent_that_only_writes(directory: Path) -> None:
    """What it adds, events, their replay: answers are right, figures stand beside bounds."""
    figures = measured(directory, "added", "events", "attach")
    assert figures["wrong answers"]["value"] == figures["processes left"]["value"] == 0
    assert bounded(figures) == {
        "added to a warm turn, p50": (None, 1.0),
        "added to a warm turn, p99": (None, 3.0),
        "events end to end": (100_000, None),
        "server CPU per event": (None, 8),
        "events against the Agent SDK": (2, None),
        "attach to the first replayed event, p50": (None, 5.0),
    }


def test_telemetry_on_three_services(directory: Path) -> None:
    """On, off and without its calls: everything is exported, and the bounds are there."""
    figures = measured(directory, "telemetry")
    assert figures["wrong answers"]["value"] == figures["processes left"]["value"] == 0
    assert figures["spans exported for each turn"]["reached"]
    assert figures["telemetry, server CPU more of a turn"]["most"] == 0.5
    assert "off against no calls, server CPU of a turn" in figures


def test_what_is_taken_out_must_be_there() -> None:
    """A call that has another name now is missed aloud: else the measurement shows nothing."""
    with pytest.raises(AttributeError, match="gone"):
        without._replace(without, print, "gone")


def test_turns_on_the_real_cli(directory: Path) -> None:
    """Turns of every contender: the same."""
    figures = measured(directory, "turns")
    assert figures["wrong answers"]["value"] == figures["processes left"]["value"] == 0
    assert bounded(figures) == {
        "warm turn against spawn per turn": (12, None),
        "warm turn against bare pipe": (None, 1.05),
    }


def test_launch_lines_on_the_real_cli(directory: Path) -> None:
    """Without one variable after another the answers are right, too."""
    figures = measured(directory, "launch-line")
    assert figures["wrong answers"]["value"] == figures["processes left"]["value"] == 0


def test_interrupts_on_the_real_cli(directory: Path) -> None:
    """They end turns as callers are promised."""
    figures = measured(directory, "interrupts")
    assert figures["wrong answers"]["value"] == figures["processes left"]["value"] == 0
    assert bounded(figures) == {
        "interrupt to the end of the stream, p50": (None, 100.0),
        "interrupt to the end of the stream, p99": (None, 500.0),
    }


def test_deaths_on_the_real_cli(directory: Path) -> None:
    """A killed process ends its turn as callers are promised."""
    figures = measured(directory, "deaths")
    assert figures["wrong answers"]["value"] == figures["processes left"]["value"] == 0
    assert bounded(figures) == {"death to the status at the caller, p99": (None, 250.0)}


def test_contention_on_the_real_cli(directory: Path) -> None:
    """More callers than slots: answers are right, processes are counted."""
    figures = measured(directory, "contention")
    assert figures["wrong answers"]["value"] == figures["processes left"]["value"] == 0
    assert bounded(figures) == {"processes alive under contention": (4, None)}
    assert 0 < figures["processes alive under contention"]["value"] <= 6
    assert figures["turns under contention"]["value"] > 0


def test_what_a_call_about_anothers_session_takes(directory: Path) -> None:
    """One line: the medians of a session of another tenant and of none, by method."""
    command = [sys.executable, "-m", "bench.equality", "--rounds", "1"]
    environ = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "TMPDIR": str(directory)}
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=2 * BOUND
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
