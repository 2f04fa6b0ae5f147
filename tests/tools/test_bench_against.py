"""Another checkout's service is measured beside this one's, or it is said why not."""

import sys
from pathlib import Path

import pytest
import typer

from bench import against, latency
from bench.__main__ import main
from bench.programs import ROOT, CannotRun
from bench.run import QUICK, Run


def checkout(directory: Path, path: str) -> Path:
    """Make a checkout: this one under another name, with a Python that has `path`."""
    made = directory / "other"
    (made / ".venv" / "bin").mkdir(parents=True)
    (made / "server").symlink_to(ROOT / "server")
    python = made / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={path} exec {sys.executable} "$@"\n')
    python.chmod(0o700)
    return made


def test_both_services_are_measured(directory: Path) -> None:
    """The ratios of CPU and of time stand beside their bound; answers of both are right."""
    other = checkout(directory, f"{directory}/other/server")
    part = latency.added(Run(directory, Path(), "", QUICK, lambda what: None, other))
    assert part.wrong == 0
    assert part.rows[-1].name == against.OTHER
    ratios = {figure.name: figure for figure in part.figures if figure.unit == "x"}
    assert list(ratios) == [
        "server CPU of a warm turn, to the other checkout",
        "added to a warm turn, p50, to the other checkout",
    ]
    assert {figure.most for figure in ratios.values()} == {1.03}
    assert ratios["server CPU of a warm turn, to the other checkout"].value > 0


def test_a_checkout_must_be_set_up(directory: Path) -> None:
    """Without an environment, or with that of another checkout, it is said so."""
    with pytest.raises(CannotRun, match=r"not set up: run `make -C .* \.venv/\.run`"):
        against.interpreter(directory)
    with pytest.raises(CannotRun, match=r"has another samovard: .*/server/samovard/"):
        against.interpreter(checkout(directory, ""))


def test_another_checkout_needs_the_part_that_measures_it(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What would be ignored is refused."""
    with pytest.raises(typer.Exit):
        main(only=["events"], against=directory)
    assert "--against needs the part `added`" in capsys.readouterr().err
