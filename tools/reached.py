"""Record which functions of the service each test reaches: a pytest plugin for mutants.py.

If the environment variable names a file, the record is written to it as JSON: for each test that
passed its seconds and the functions, then the tests that did not pass.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType

import pytest

PACKAGE = Path("server/samovard")
TRACE = "SAMOVAR_MUTANTS_TRACE"

_reached: dict[int, CodeType] = {}
_passed: dict[str, tuple[float, list[str]]] = {}
_failed: set[str] = set()
# Read when this is imported: the tests' own conftest.py, which comes later, drops the variable.
_noted = os.environ.get(TRACE)


def _note(frame: FrameType, event: str, _: object) -> None:
    if event == "call":
        code = frame.f_code
        _reached[id(code)] = code


def pytest_configure() -> None:
    """Begin to record."""
    if _noted is not None:
        threading.setprofile(_note)
        sys.setprofile(_note)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Record what one test reaches, and how long it takes."""
    _reached.clear()
    begin = time.monotonic()
    result = yield
    if _noted is not None and item.nodeid not in _failed:
        _passed[item.nodeid] = time.monotonic() - begin, _names()
    return result


def _names() -> list[str]:
    base = f"{Path.cwd() / PACKAGE}/"
    return sorted(
        f"{code.co_filename.removeprefix(base)}:{code.co_qualname}"
        for code in list(_reached.values())
        if code.co_filename.startswith(base)
    )


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record that a test does not pass."""
    if not report.passed:
        _failed.add(report.nodeid)


def pytest_unconfigure() -> None:
    """Write the record."""
    if _noted is not None:
        sys.setprofile(None)
        Path(_noted).write_text(json.dumps([_passed, sorted(_failed)]))
