"""The page of promises names a test for each, and every test that it names is there."""

import ast
import functools
import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = TESTS.parent / "docs" / "promises.md"


def rows() -> list[list[str]]:
    """Gives the cells of each promise."""
    listed = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in listed]
    return [row for row in cells if row[-1] not in ("Shown by", "---")]


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


def test_every_promise_names_tests_that_are_there() -> None:
    """No promise stands alone, and no proof was renamed or taken away."""
    for *_, proofs in rows():
        named = re.findall(r"`([\w/]+\.py)::(\w+)`", proofs)
        assert named, f"no test: {proofs}"
        assert len(named) == proofs.count("`") / 2, f"what is no test: {proofs}"
        for file, name in named:
            assert name in names_in(TESTS / file), f"{file}::{name}"


def test_the_promises_of_a_turn_are_eighteen() -> None:
    """They are numbered, so that a comment can name one."""
    numbers = [row[0] for row in rows() if row[0].isdigit()]
    assert numbers == [str(number) for number in range(1, 19)]
