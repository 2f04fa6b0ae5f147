"""The table of languages, their drivers' sources, the matrix and the page that compares them."""

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import samovar
from conformance import matrix
from conformance.languages import (
    CLIENTS,
    LANGUAGES,
    TOOLS,
    CannotBuild,
    Language,
    build,
    lacking,
    parsed,
    present,
)

#: Words of the Python column that are no names of the package.
WORDS = {"samovar", "traceparent"}
NAME = re.compile(r"([A-Z]\w*(?:\.\w+)?)(?:\((\w+)\))?")


@pytest.mark.parametrize("name", present())
def test_a_driver_is_small_and_knows_no_generated_code(name: str) -> None:
    """Its source is short, and imports what a caller of the client imports."""
    language = LANGUAGES[name]
    sources = [path for path in language.sources() if "_test" not in path.name]
    assert sum(len(path.read_text().splitlines()) for path in sources) <= language.most
    for line in "\n".join(path.read_text() for path in sources).splitlines():
        if re.search(r'\bimport\b|\bfrom\b|\brequire\b|^\s+(\w+ )?"', line):
            assert not [mark for mark in language.generated if mark in line], line


@pytest.mark.parametrize("name", present())
def test_a_driver_keeps_no_table_of_errors(name: str) -> None:
    """No failure is named in a driver: what they are called comes from the client."""
    text = "\n".join(path.read_text() for path in LANGUAGES[name].sources())
    reasons = (reason.lower() for reason in samovar.errors.BY_REASON)
    names = [reason.replace("_", "") for reason in reasons if "_" in reason]
    flat = re.sub(r"[\W_]", "", text).lower()
    assert [name for name in names if name in flat] == []


def test_python_is_always_there() -> None:
    """Python's driver needs no tools, and is not built."""
    assert present()[0] == "python"
    assert lacking("python") is None
    assert build("python", Path("out"))[-1] == f"{CLIENTS}/python/conformance/driver.py"


def test_every_tool_has_its_version() -> None:
    """The table of tools has each that a language needs, and no others."""
    assert {tool for language in LANGUAGES.values() for tool in language.tools} == set(TOOLS)


@pytest.mark.parametrize(
    ("said", "version"),
    [("go version go1.26.8 linux/amd64", (1, 26)), ("v20.20.2\n", (20, 20)), ("?", ())],
)
def test_versions_are_read(said: str, version: tuple[int, ...]) -> None:
    """Programs say their versions in different ways."""
    assert parsed(said) == version


@pytest.fixture
def invented(directory: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A language whose client is there, and whose driver takes a tool to build."""
    language = Language(
        title="Invented",
        directory=str(directory),
        driver="driver",
        run=("{out}", "{at}"),
        build=(("cp", "driver", "{out}"),),
        tools=("go",),
    )
    monkeypatch.setitem(LANGUAGES, "invented", language)
    return "invented"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (None, "go is not installed: Invented needs 1.24 or later"),
        ("go version go1.9.1", "go is 1.9: Invented needs 1.24 or later"),
        ("go version go1.24.0", None),
    ],
)
def test_what_is_lacking_is_one_sentence(
    invented: str, said: str | None, reason: str | None
) -> None:
    """A tool that is missing or too old is named, with the version that is needed."""
    assert lacking(invented, lambda command: said) == reason


def test_a_client_that_is_not_there_is_lacking(
    invented: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A language appears with its directory."""
    gone = Language(title="Gone", directory="gone", driver="driver", run=())
    monkeypatch.setitem(LANGUAGES, "gone", gone)
    assert "gone" not in present()
    assert lacking("gone") == "clients/gone is not there"


def test_a_driver_is_built_in_its_directory(invented: str, directory: Path) -> None:
    """Its command names what was made; a build that fails says how."""
    with pytest.raises(CannotBuild, match="cp driver"):
        build(invented, directory / "out")
    (directory / "driver").write_text("made")
    assert build(invented, directory / "out") == (str(directory / "out"), str(directory))
    assert (directory / "out").read_text() == "made"


def test_a_scenario_is_as_good_as_the_worst_of_its_tests() -> None:
    """A cell is filled if all tests of its scenario passed."""
    found: matrix.Matrix = {}
    for outcome in ("passed", "failed", "skipped"):
        matrix.add(found, "a", "python", outcome)
    matrix.add(found, "b", "python", "passed")
    assert found == {"a": {"python": "FAILED"}, "b": {"python": "yes"}}


def test_every_scenario_has_words_of_its_own() -> None:
    """The words of a scenario are its row."""
    found = matrix.scenarios()
    assert len(found) == len(set(found)) > 50
    assert all(words.endswith(".") for words in found)
    whole = {words: {"python": matrix.YES} for words in found}
    assert matrix.empty(whole, ["python"]) == []
    assert len(matrix.empty(whole, ["python", "go"])) == len(found)


def test_the_page_has_every_scenario_and_no_empty_cell() -> None:
    """The matrix of the page is one of this suite, for the languages that are there."""
    whole = {words: dict.fromkeys(present(), matrix.YES) for words in matrix.scenarios()}
    text = matrix.PAGE.read_text()
    assert matrix.page(whole, present(), text) == text, "make clients ARGS=--write"


def rows() -> list[list[str]]:
    """Return the cells of the table of names, its head first."""
    lines = (CLIENTS / "README.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_no_cell_of_the_names_is_empty() -> None:
    """Each language has a name, or a word, for each thing."""
    head, _, *table = rows()
    assert len(table) > 40
    assert head[2:] == [language.title for language in LANGUAGES.values()]
    assert [row for row in table if len(row) != len(head) or not all(row)] == []


def test_every_name_of_python_is_there() -> None:
    """The names of the Python column are those of the package, its arguments among them."""
    for row in rows()[2:]:
        for span in set(re.findall(r"`([^`]+)`", row[2])) - WORDS:
            match = NAME.fullmatch(span)
            assert match, span
            assert found(match[1], match[2]), span


def found(path: str, argument: str | None) -> bool:
    """True if the package has a name, or a function an argument."""
    thing: Any = samovar
    for name in path.split("."):
        fields = getattr(thing, "__dataclass_fields__", {})
        if name in fields:
            return argument is None
        if not hasattr(thing, name):
            return False
        thing = getattr(thing, name)
    return argument is None or argument in inspect.signature(thing).parameters


def test_every_option_has_its_row() -> None:
    """Each field of the options is in the table."""
    text = " ".join(row[2] for row in rows())
    fields = samovar.Options.__dataclass_fields__
    assert [name for name in fields if f"`Options.{name}`" not in text] == []
