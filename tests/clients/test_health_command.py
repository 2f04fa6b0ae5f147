"""`samovar health`: what a probe learns from its exit code."""

import sys
from pathlib import Path

import pytest
from support.program import SAMOVAR, run, served


def test_it_tells_whether_turns_are_served(directory: Path) -> None:
    """0 and one word; an unknown name is 1, a service that is gone 3, each with one line."""
    with served(directory) as program:
        target = ("--target", program.address)
        for service in ("samovar.v1.Session", "", "grpc.health.v1.Health"):
            done = run(*SAMOVAR, "health", *target, "--service", service)
            assert (done.returncode, done.stdout, done.stderr) == (0, "serving\n", "")
        unknown = run(*SAMOVAR, "health", *target, "--service", "acme")
        assert (unknown.returncode, unknown.stdout) == (1, "")
        assert unknown.stderr == f"samovar: {program.address}: not found\n"
        assert program.end() == 0
    gone = run(*SAMOVAR, "health", *target, "--deadline", "2")
    assert gone.returncode == 3
    assert gone.stderr.count("\n") == 1


@pytest.mark.parametrize("module", ["rich", "prompt_toolkit"])
def test_a_probe_loads_nothing_that_draws(module: str) -> None:
    """It runs every few seconds, for ever."""
    code = f"import sys, samovar.cli, samovar.health; sys.exit({module!r} in sys.modules)"
    assert run(sys.executable, "-c", code).returncode == 0
