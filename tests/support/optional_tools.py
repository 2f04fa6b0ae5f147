"""Programs that are not on every machine: their tests skip without them, and fail in CI."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from support.timeouts import BOUND

#: What `make deploy-tools` sets up lies beside this interpreter.
BESIDE = str(Path(sys.executable).parent)


def missing(said: str) -> NoReturn:
    """Skip the test with a reason; in CI fail it."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(said)


def tool(name: str, hint: str = "`make deploy-tools` sets it up") -> str:
    """Return the path of a program."""
    found = shutil.which(name, path=os.pathsep.join((BESIDE, os.environ.get("PATH", ""))))
    return found or missing(f"{name} is not installed: {hint}")


def passes(*command: str | Path, **variables: str) -> str:
    """Run a program that must succeed, and return its output."""
    environ = {"PATH": os.environ.get("PATH", os.defpath), **variables}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=BOUND)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
