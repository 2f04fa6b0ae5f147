"""`docs/architecture.md` names what is there: files, tests, states of a process, arrows."""

import ast
import functools
import re
import shutil
from pathlib import Path

import pytest
import rooms

from samovard.core.pool.states import TRANSITIONS, ProcessState

ROOT = Path(__file__).parent.parent
SERVER = ROOT / "server" / "samovard"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
#: What somebody may want to add: each has a row.
ADDED = {
    "an event kind",
    "an RPC",
    "a setting",
    "a credential provider",
    "a store backend",
    "an isolation rung",
    "a metric",
    "an incident",
    "an error reason",
    "a client language",
    "a spare process",
}
NAMED = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.(?:py|proto|md|toml|json|yaml|svg)|(?:[\w-]+/)+)`")
PART = re.compile(r"`([\w./-]+\.py)::([\w.]+)`")


def section(title: str) -> str:
    """Return the text below a heading."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """Return the cells of a section's table, without its head."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def found(name: str) -> Path | None:
    """Return the file or directory that the page calls so: the server's, a test or another."""
    return next((at / name for at in (SERVER, ROOT) if (at / name).exists()), None)


@functools.cache
def defined(path: Path) -> set[str]:
    """Return the names that a file defines, those of a class behind its own."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        names |= _names(node)
        if isinstance(node, ast.ClassDef):
            inside = (name for inner in node.body for name in _names(inner))
            names |= {f"{node.name}.{name}" for name in inside}
    return names


def _names(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.AnnAssign):
        return {node.target.id} if isinstance(node.target, ast.Name) else set()
    if isinstance(node, ast.Assign):
        inner = (name for target in node.targets for name in ast.walk(target))
        return {name.id for name in inner if isinstance(name, ast.Name)}
    return set()


def test_every_file_that_the_page_names_is_there() -> None:
    """A path is below `server/samovard`, or below the repository."""
    named = set(NAMED.findall(PAGE)) | {file for file, _ in PART.findall(PAGE)}
    assert len(named) > 60
    assert {name for name in named if found(name) is None} == set()


def test_every_part_of_a_file_that_the_page_names_is_there() -> None:
    """A test, class, function or constant behind `::` is defined in its file."""
    parts = PART.findall(PAGE)
    assert len(parts) > 30
    for file, name in parts:
        path = found(file)
        assert path is not None and name in defined(path), f"{file}::{name}"


def test_every_code_span_of_the_tables_is_whole() -> None:
    """A path that is written in another way would not be looked for."""
    for span in re.findall(r"`([^`\n]+)`", PAGE):
        if span.endswith(".py") or ".py::" in span:
            assert NAMED.fullmatch(f"`{span}`") or PART.fullmatch(f"`{span}`"), span


def test_every_state_has_its_row_and_its_arrows() -> None:
    """The life of a process has each state once, in order, with what it may move to."""
    table = rows("The life of a process")
    assert [row[0] for row in table] == [f"`{state.value}`" for state in ProcessState]
    for state, row in zip(ProcessState, table, strict=True):
        follows = set(re.findall(r"`([a-z]+)`", row[2]))
        assert follows == {after.value for after in TRANSITIONS[state]}, state


def test_what_may_be_added_has_its_row() -> None:
    """Each row names files to touch and tests that fail if one is forgotten."""
    table = rows("To add X, touch Y")
    assert {row[0] for row in table} == ADDED
    for what, files, tests in table:
        assert NAMED.search(files) or PART.search(files), what
        assert [file for file, _ in PART.findall(tests) if file.startswith("tests/")], what


def test_every_question_is_answered_with_files() -> None:
    """Each answer names where to look."""
    table = rows("Where is X?")
    assert len(table) > 10
    for question, answer in table:
        assert question.endswith("?")
        assert NAMED.search(answer) or PART.search(answer), question


def test_the_way_of_a_prompt_is_told_in_order() -> None:
    """Its lines are numbered, and each names a file."""
    lines = re.findall(r"^(\d+)\. (.*(?:\n   .*)*)", section("The way of one prompt"), re.MULTILINE)
    assert [int(number) for number, _ in lines] == list(range(1, len(lines) + 1))
    assert all(NAMED.search(line) or PART.search(line) for _, line in lines)


def test_the_picture_of_the_rooms_is_fresh() -> None:
    """What is committed is what the imports say now: else `make generate`."""
    assert rooms.stale() == []
    assert "(rooms.svg)" in PAGE


def test_no_arrow_goes_up() -> None:
    """A room imports what stands below it, for types as well."""
    assert not rooms.upward(rooms.imports())


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the server's sources, which the picture is then made of."""
    there = tmp_path / "samovard"
    shutil.copytree(SERVER, there, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(rooms, "SERVER", there)
    return there


LATE = "    from samovard.edge.gate import Gate\n"


@pytest.mark.parametrize(
    "text",
    [
        "from samovard.edge import gate\n",
        "import samovard.edge.gate\n",
        f"from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n{LATE}",
        f"def late() -> None:\n{LATE}",
    ],
)
def test_an_import_makes_the_picture_stale(copied: Path, text: str) -> None:
    """Whether it is for types, within a function or at the top of a file."""
    (copied / "store" / "kettle.py").write_text(text)
    assert rooms.upward(rooms.imports())["store", "edge"] == ["store/kettle.py"]
    assert rooms.stale() == ["docs/rooms.svg is stale"]


def test_a_room_without_a_place_is_told(copied: Path) -> None:
    """A new room must be given its layer."""
    (copied / "kettle").mkdir()
    (copied / "kettle" / "boil.py").write_text("")
    (told,) = rooms.stale()
    assert told == "kettle/boil.py: give its room, kettle, a place in tools/rooms.py"


def test_a_top_module_that_a_room_imports_goes_up(copied: Path) -> None:
    """Only what stands below the rooms may be imported by them."""
    (copied / "store" / "kettle.py").write_text("from samovard import listing\n")
    assert ("store", rooms.TOP) in rooms.upward(rooms.imports())
