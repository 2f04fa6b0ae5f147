"""The pages of promises name a test for each, and every test that they name is there."""

import ast
import functools
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PAGES = ("promises", "security")
PROOFS = "Shown by"


def rows(page: str) -> list[list[str]]:
    """Return the cells of each promise: of each row of a table that has proofs."""
    found, proves = [], False
    for line in (TESTS.parent / "docs" / f"{page}.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[-1] == PROOFS:
            proves = True
        elif not line.startswith("|"):
            proves = False
        elif proves and cells[-1] != "---":
            found.append(cells)
    return found


@functools.cache
def names_in(path: Path) -> set[str]:
    """Gives the names that a file of tests defines."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


@pytest.mark.parametrize("page", PAGES)
def test_every_promise_names_tests_that_are_there(page: str) -> None:
    """No promise stands alone, and no proof was renamed or taken away."""
    assert len(rows(page)) > 30
    for *_, proofs in rows(page):
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", proofs)
        assert named, f"no test: {proofs}"
        assert len(named) == proofs.count("`") / 2, f"what is no test: {proofs}"
        for file, name in named:
            assert name in names_in(TESTS / file), f"{file}::{name}"


def test_the_promises_of_a_turn_are_eighteen() -> None:
    """They are numbered, so that a comment can name one."""
    numbers = [row[0] for row in rows("promises") if row[0].isdigit()]
    assert numbers == [str(number) for number in range(1, 19)]
