"""The short form of `make fuzz`, and that it finds what is planted."""

import json
import re
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzz import run, target
from fuzz.__main__ import main
from fuzz.targets import TARGETS
from msgspec import Struct
from typer import Typer
from typer.testing import CliRunner

from samovard.agent import window
from samovard.agent.broker import heads, rules, servers
from samovard.edge import call_telemetry, mtls

SEED = 20
COUNTS = {"requests": 300, "callers": 400, "framing": 300, "broker": 300, "proxy": 300}
#: Of each target a fault or two: its place, its name, and what stands there instead.
PLANTED: dict[str, tuple[Any, str, Any]] = {
    "requests": (call_telemetry, "_COUNT", re.compile("")),
    "callers": (mtls, "TENANT", re.compile(".*")),
    "framing": (window, "_TERMINAL", ("cancelled",)),
    "broker": (rules, "_PREFIXES", ("",)),
    "broker of MCP servers": (servers, "_REQUEST", (*servers._REQUEST, "cookie")),
    "proxy": (heads, "_HOPS", set()),
}


@pytest.mark.parametrize("name", COUNTS)
def test_no_input_crashes(name: str) -> None:
    """Requests, callers and agents' lines that nobody would write do what they are to do."""
    found = run.fuzz(TARGETS[name], COUNTS[name], SEED)
    assert not found.told, f"{found.crash}\n{found.told}"
    assert found.inputs == COUNTS[name]


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_is_found_and_can_be_tried_again(
    fault: str, monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """What crashes is kept as it is, is smaller than what was drawn, and crashes no more without
    the fault."""
    name = fault.partition(" ")[0]
    monkeypatch.setattr(*PLANTED[fault])
    found = run.fuzz(TARGETS[name], 20_000, SEED)
    assert found.told
    path = run.keep(TARGETS[name], found.crash, directory)
    which, kept = run.kept(path, TARGETS)
    assert (which.name, kept) == (name, found.crash)
    assert run.again(which, kept).told
    monkeypatch.undo()
    assert not run.again(which, kept).told


class Number(Struct):
    value: int


def endless(number: Number) -> None:
    while True:
        number.value += 1


def test_an_input_that_never_ends_is_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up after so much time of the processor, however busy the machine is."""
    monkeypatch.setattr(target, "PATIENCE", 0.05)
    spins = target.Target("spins", Number, lambda draw: Number(0), lambda: nullcontext(endless))
    assert "TooLong" in run.fuzz(spins, 1, SEED).told


def command(*arguments: str) -> tuple[int, dict[str, Any], str]:
    """Run `make fuzz`; return the exit code, the figures and what is told beside them."""
    app = Typer()
    app.command()(main)
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_the_command_ends_with_figures_beside_their_bounds() -> None:
    """The inputs are those of the seed."""
    code, told, _ = command("--count", "20", "--seed", "7", "--only", "callers")
    assert (code, told["passed"], told["seed"]) == (0, True, 7)
    assert told["callers"]["inputs"] == 20
    assert told["callers"]["crashes"] == {"value": 0, "at_most": 0}
    draws = [[each.draw(Random(f"7 {n}")) for n in range(9)] for each in TARGETS.values()]
    assert draws == [[each.draw(Random(f"7 {n}")) for n in range(9)] for each in TARGETS.values()]


def test_a_crash_fails_the_command_which_says_how_to_see_it_again(
    monkeypatch: pytest.MonkeyPatch, directory: Path
) -> None:
    """What it says is the command."""
    monkeypatch.chdir(directory)
    with monkeypatch.context() as planted:
        planted.setattr(*PLANTED["framing"])
        code, told, beside = command("--only", "framing", "--seed", "7")
        assert (code, told["passed"], told["framing"]["crashes"]["value"]) == (1, False, 1)
        (again,) = re.findall(r'ARGS="(--again \S+)"', beside)
        code, _, beside = command(*again.split())
        assert code == 1
        assert "AssertionError" in beside
    assert command(*again.split())[0] == 0
